#include "model/exchange_relay.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

namespace mlip {
namespace {

class Relay : public Exchange {
 public:
  explicit Relay(Exchange& engine) : engine_(engine) {}

  void gather(const FeatureRows& rows) override { ask(&Exchange::gather, rows); }
  void scatter_add(const FeatureRows& rows) override { ask(&Exchange::scatter_add, rows); }

  /// On the engine's thread, until finish().
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return call_ || finished_; });
      if (!call_) return;
      failure_ = nullptr;
      try {
        (engine_.*call_->what)(*call_->rows);
      } catch (...) {
        failure_ = std::current_exception();
      }
      call_.reset();
      changed_.notify_all();
    }
  }

  void finish() {
    const std::lock_guard<std::mutex> lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  }

 private:
  struct Call {
    void (Exchange::*what)(const FeatureRows&);
    const FeatureRows* rows;
  };

  void ask(void (Exchange::*what)(const FeatureRows&), const FeatureRows& rows) {
    const std::lock_guard<std::mutex> turn(turn_);  // calls are collective: one after the other
    std::unique_lock<std::mutex> lock(mutex_);
    call_ = Call{what, &rows};
    changed_.notify_all();
    changed_.wait(lock, [&] { return !call_; });
    if (failure_) std::rethrow_exception(failure_);
  }

  Exchange& engine_;
  std::mutex turn_, mutex_;
  std::condition_variable changed_;
  std::optional<Call> call_;
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
