#include "model/exchange_relay.h"

#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "core/condition_variable.h"

namespace mlip {
namespace {

class Relay : public Exchange {
 public:
  explicit Relay(Exchange& engine) : engine_(engine) {}

  std::int64_t n_ghosts() const override { return engine_.n_ghosts(); }
  void gather(const FeatureRows& rows) override {
    ask([&] { engine_.gather(rows); });
  }
  void scatter_add(const FeatureRows& rows) override {
    ask([&] { engine_.scatter_add(rows); });
  }
  void sum(double* values, std::int64_t n) override {
    ask([&] { engine_.sum(values, n); });
  }

  LentNodes* lent() override { return engine_.lent(); }

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

/// Does what it is given, one thing after the other.
class ExchangeRelay::Worker {
 public:
  Worker() : thread_([this] { work(); }) {}
  ~Worker() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ended_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  /// @param job must not throw
  void start(std::function<void()> job) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = std::move(job);
    }
    changed_.notify_one();
  }

 private:
  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return job_ || ended_; });
      if (!job_) return;
      const std::function<void()> job = std::exchange(job_, nullptr);
      lock.unlock();
      job();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> job_;  // empty while there is nothing to do
  bool ended_ = false;
  std::thread thread_;  // last: it uses the others
};

ExchangeRelay::ExchangeRelay() = default;
ExchangeRelay::~ExchangeRelay() = default;

void ExchangeRelay::run(Exchange& engine, const std::function<void(Exchange&)>& body) {
  if (!worker_) worker_ = std::make_unique<Worker>();
  const auto relay = std::make_shared<Relay>(engine);  // the worker may be the last to let go of it
  std::exception_ptr failure;
  worker_->start([relay, &body, &failure] {
    try {
      body(*relay);
    } catch (...) {
      failure = std::current_exception();
    }
    relay->finish();
  });
  relay->serve();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace mlip
