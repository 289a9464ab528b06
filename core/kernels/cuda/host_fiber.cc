#include "core/kernels/cuda/host_fiber.h"

#include <memory>
#include <utility>

#include "absl/base/config.h"

#ifdef ABSL_HAVE_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif

namespace chorus::device {
namespace {

namespace context = boost::context;

constexpr size_t kStackBytes = 128 << 10;

struct Unwinding {};

}  // namespace

#ifdef ABSL_HAVE_ADDRESS_SANITIZER
void HostFiber::BeginSwitch(Stack* from, const Stack& to) {
  __sanitizer_start_switch_fiber(from == nullptr ? nullptr : &from->fake_stack, to.bottom,
                                 to.bytes);
}
void HostFiber::EndSwitch(const Stack& to, Stack* from) {
  __sanitizer_finish_switch_fiber(to.fake_stack, &from->bottom, &from->bytes);
}
#else
void HostFiber::BeginSwitch(Stack*, const Stack&) {}
void HostFiber::EndSwitch(const Stack&, Stack*) {}
#endif

HostFiber::HostFiber(std::function<void()> run) : run_(std::move(run)) {
  context::fixedsize_stack allocator(kStackBytes);
  const context::stack_context stack = allocator.allocate();
  fiber_stack_.bottom = static_cast<const char*>(stack.sp) - stack.size;
  fiber_stack_.bytes = stack.size;
  const auto start = [this](context::fiber&& resumer) {
    resumer_ = std::move(resumer);
    EndSwitch(fiber_stack_, &resumer_stack_);
    Run();
    BeginSwitch(nullptr, resumer_stack_);
    return std::move(resumer_);
  };
  fiber_ = context::fiber(std::allocator_arg, context::preallocated(stack.sp, stack.size, stack),
                          allocator, start);
}

HostFiber::~HostFiber() {
  is_unwound_ = true;
  if (!has_ended_) Resume();
}

void HostFiber::Run() {
  try {
    if (!is_unwound_) run_();
  } catch (const Unwinding&) {
  }
  has_ended_ = true;
}

void HostFiber::Resume() {
  BeginSwitch(&resumer_stack_, fiber_stack_);
  fiber_ = std::move(fiber_).resume();
  EndSwitch(resumer_stack_, &fiber_stack_);
}

void HostFiber::Suspend() {
  BeginSwitch(&fiber_stack_, resumer_stack_);
  resumer_ = std::move(resumer_).resume();
  EndSwitch(fiber_stack_, &resumer_stack_);
  if (is_unwound_) throw Unwinding{};
}

}  // namespace chorus::device
