// Tells ThreadSanitizer what absl's mutexes and the reference counts of its Status order. Linked
// into tests of a ThreadSanitizer build only.
//
// Distributions ship absl without instrumentation, so ThreadSanitizer sees neither its locks nor
// the order that they make, and reports every guarded member, and the end of every shared Status, as
// a race. These definitions stand
// before the shared library's, add the missing edges and call on to it. Every edge is a true one:
// what races without a lock still races. Building absl from source for one preset was looked at:
// gRPC is linked against the distribution's, so it would have to be built too.

#include <dlfcn.h>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "core/base/check.h"

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}

namespace {

// The shared library's function of the same name as `member`, one of those below.
template <typename Member>
Member Next(Member member) {
  // Itanium ABI: {address, adjustment}, or the address of a static one.
  static_assert(sizeof(Member) == 2 * sizeof(void*) || sizeof(Member) == sizeof(void*));
  union {
    Member function;
    void* address;
  } pointer = {member};
  Dl_info info;
  CHECK(dladdr(pointer.address, &info) != 0 && info.dli_sname != nullptr);
  void* const next = dlsym(RTLD_NEXT, info.dli_sname);
  CHECK(next != nullptr && next != pointer.address);
  pointer.address = next;
  return pointer.function;
}

// Around a call that gives `mutex` up and may take it again. Conditions of waiting threads are
// evaluated inside, under the lock but after the edge: their reads are not looked at.
class GivenUp {
 public:
  GivenUp(absl::Mutex* mutex, bool takes_again) : mutex_(takes_again ? mutex : nullptr) {
    __tsan_release(mutex);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  }
  ~GivenUp() {
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    if (mutex_ != nullptr) __tsan_acquire(mutex_);
  }

 private:
  absl::Mutex* const mutex_;
};

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

// One reference less; whoever drops the last one deletes what all have used. The count is changed
// with acquire and release order.
void Status::UnrefNonInlined(uintptr_t rep) {
  static const auto next = Next(&Status::UnrefNonInlined);
  void* const counted = RepToPointer(rep);
  __tsan_release(counted);
  __tsan_acquire(counted);
  next(rep);
}

void Mutex::Lock() {
  static const auto next = Next(&Mutex::Lock);
  (this->*next)();
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  static const auto next = Next(&Mutex::Unlock);
  const GivenUp given_up(this, /*takes_again=*/false);
  (this->*next)();
}

void Mutex::Await(const Condition& condition) {
  static const auto next = Next(&Mutex::Await);
  const GivenUp given_up(this, /*takes_again=*/true);
  (this->*next)(condition);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static const auto next = Next(&Mutex::AwaitWithTimeout);
  const GivenUp given_up(this, /*takes_again=*/true);
  return (this->*next)(condition, timeout);
}

void CondVar::Wait(Mutex* mutex) {
  static const auto next = Next(&CondVar::Wait);
  const GivenUp given_up(mutex, /*takes_again=*/true);
  (this->*next)(mutex);
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static const auto next = Next(&CondVar::WaitWithDeadline);
  const GivenUp given_up(mutex, /*takes_again=*/true);
  return (this->*next)(mutex, deadline);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static const auto next = Next(&CondVar::WaitWithTimeout);
  const GivenUp given_up(mutex, /*takes_again=*/true);
  return (this->*next)(mutex, timeout);
}

ABSL_NAMESPACE_END
}  // namespace absl
