#pragma once

#include <cstddef>
#include <functional>

#include <boost/context/fiber.hpp>

namespace chorus::device {

// A function that runs on a stack of its own, stops in its middle and goes on later. It is resumed
// by one thread. AddressSanitizer is told of every switch: it must know which stack it looks at.
class HostFiber {
 public:
  // Begins at the first Resume. `run` throws nothing but what Suspend throws.
  explicit HostFiber(std::function<void()> run);
  // If `run` has stopped, Suspend throws, so that all objects on its stack are destroyed.
  ~HostFiber();
  HostFiber(const HostFiber&) = delete;
  HostFiber& operator=(const HostFiber&) = delete;

  // Returns when `run` stops or ends. REQUIRES: !has_ended().
  void Resume();
  // Stops `run`, which calls it, until the next Resume.
  void Suspend();
  bool has_ended() const { return has_ended_; }

 private:
  struct Stack {
    const void* bottom = nullptr;  // its lowest address
    size_t bytes = 0;
    void* fake_stack = nullptr;  // AddressSanitizer's, while the stack is not the current one
  };
  // Around every switch; `from` is null if it will not be gone back to.
  static void BeginSwitch(Stack* from, const Stack& to);
  static void EndSwitch(const Stack& to, Stack* from);

  void Run();

  const std::function<void()> run_;
  boost::context::fiber fiber_, resumer_;  // one of them is where a switch leads to
  Stack fiber_stack_, resumer_stack_;
  bool is_unwound_ = false;
  bool has_ended_ = false;
};

}  // namespace chorus::device
