#include "model/exchange_relay.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace mlip {
namespace {

class Relay : public Exchange {
 public:
  explicit Relay(Exchange& engine) : engine_(engine) {}

  void gather(const FeatureRows& rows) override {
    ask([&] { engine_.gather(rows); });
  }
  void scatter_add(const FeatureRows& rows) override {
    ask([&] { engine_.scatter_add(rows); });
  }
  void sum(double* values, std::int64_t n) override {
    ask([&] { engine_.sum(values, n); });
  }

  /// On the engine's thread, until finish().
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return call_ || finished_; });
      if (!call_) return;
      failure_ = nullptr;
      try {
        call_();
      } catch (...) {
        failure_ = std::current_exception();
      }
      call_ = nullptr;
      changed_.notify_all();
    }
  }

  void finish() {
    const std::lock_guard<std::mutex> lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  }

 private:
  void ask(const std::function<void()>& call) {
    const std::lock_guard<std::mutex> turn(turn_);  // calls are collective: one after the other
    std::unique_lock<std::mutex> lock(mutex_);
    call_ = call;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !call_; });
    if (failure_) std::rethrow_exception(failure_);
  }

  Exchange& engine_;
  std::mutex turn_, mutex_;
  std::condition_variable changed_;
  std::function<void()> call_;  // empty while the engine has nothing to do
  std::exception_ptr failure_;
  bool finished_ = false;
};

}  // namespace

void exchange_on_this_thread(Exchange& engine, const std::function<void(Exchange&)>& body) {
  Relay relay(engine);
  std::exception_ptr failure;
  std::thread worker([&] {
    try {
      body(relay);
    } catch (...) {
      failure = std::current_exception();
    }
    relay.finish();
  });
  relay.serve();
  worker.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace mlip
