#include "apps/log.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

namespace agon {

namespace {

int columns(std::FILE* out) {
  winsize size{};
  return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 120;
}

}  // namespace

double load_ratio(const std::vector<std::vector<double>>& load) {
  double worst = 0;
  for (const auto& layer : load) {
    const double sum = std::accumulate(layer.begin(), layer.end(), 0.0);
    if (sum > 0) worst = std::max(worst, *std::ranges::max_element(layer) * double(layer.size()) / sum);
  }
  return worst;
}

std::string off_budget(double realised, double configured) {
  return std::abs(realised - configured) < 1e-9 ? "" : fmt::format(" k {:.2f}", realised);
}

std::string json_line(const StepReport& r) {
  nlohmann::ordered_json j;
  j["step"] = r.step;
  j["loss"] = r.loss;
  if (r.evaluated) {
    j["val_loss"] = r.val_loss;
    j["val_bpb"] = r.val_bpb;
    j["val_scope"] = r.val_causal ? "causal" : "noncausal";
    if (r.configured_k > 0) j["val_k"] = r.val_k;
  }
  j["lr"] = r.rate;
  j["grad_norm"] = r.gradient_norm;
  j["tokens_per_s"] = r.seconds > 0 ? double(r.tokens) / r.seconds : 0.0;
  j["share_of_peak"] = r.share_of_peak;
  if (r.ranks > 1) {
    j["comm_share"] = r.comm_share;
    j["comm_bytes"] = r.comm_bytes;
    if (r.slowest >= 0) j["slowest"] = r.slowest;
  }
  for (const auto& [name, value] : r.losses) j["loss." + name] = value;
  if (!r.load.empty()) {
    j["load"] = r.load;
    j["dropped"] = r.dropped;
    j["competing"] = r.competing;
    j["routing"] = r.routing;
  }
  return j.dump();
}

std::string short_number(double n) {
  if (n >= 1e9) return fmt::format("{:.3g}G", n / 1e9);
  if (n >= 1e6) return fmt::format("{:.3g}M", n / 1e6);
  if (n >= 1e4) return fmt::format("{:.3g}k", n / 1e3);
  return fmt::format("{:.0f}", n);
}

std::string short_time(double seconds) {
  const auto s = int64_t(std::llround(std::max(0.0, seconds)));
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

std::string short_bytes(double bytes) {
  if (bytes >= 1024. * 1024 * 1024) return fmt::format("{:.2f} GiB", bytes / (1024. * 1024 * 1024));
  if (bytes >= 1024. * 1024) return fmt::format("{:.1f} MiB", bytes / (1024. * 1024));
  return fmt::format("{:.1f} KiB", bytes / 1024);
}

Progress::Progress(const LogOptions& options, int64_t steps, std::FILE* out)
    : options_(options),
      steps_(steps),
      out_(out),
      live_(options.format == "live" || (options.format == "auto" && isatty(fileno(out)))) {}

Progress::~Progress() {
  if (shown_) std::fputc('\n', out_);
  std::fflush(out_);
}

void Progress::pause() {
  if (shown_) std::fputs("\r\x1b[K", out_);
  shown_ = false;
}

std::string Progress::line(const StepReport& r) const {
  std::string s = fmt::format("{:3.0f}% step {}/{} loss {:.4f}", 100. * double(r.step) / double(steps_), r.step, steps_,
                              smooth_loss_);
  if (val_loss_ >= 0) s += fmt::format(" val {:.4f}", val_loss_) + val_note_;
  s += fmt::format(" lr {:.2e} norm {:.2f} {} tok/s", r.rate, r.gradient_norm, short_number(smooth_speed_));
  if (r.share_of_peak > 0) s += fmt::format(" {:.0f}% of peak", 100 * r.share_of_peak);
  if (r.ranks > 1) s += fmt::format(" comm {:.0f}% {}", 100 * r.comm_share, short_bytes(r.comm_bytes));
  if (r.slowest >= 0) s += fmt::format(" slowest {}", r.slowest);
  if (!r.load.empty()) s += fmt::format(" load {:.2f}", load_ratio(r.load));
  if (r.dropped > 0) s += fmt::format(" drop {:.1f}%", 100 * r.dropped);
  const double left = smooth_speed_ > 0 ? double(steps_ - r.step) * double(r.tokens) / smooth_speed_ : 0;
  return s + " eta " + short_time(left);
}

void Progress::step(const StepReport& r) {
  // Means over about 20 steps, corrected for their start.
  ++seen_;
  const double keep = std::min(0.95, 1 - 1.0 / double(seen_));
  smooth_loss_ = keep * smooth_loss_ + (1 - keep) * r.loss;
  if (r.seconds > 0) smooth_speed_ = keep * smooth_speed_ + (1 - keep) * double(r.tokens) / r.seconds;
  if (r.evaluated)
    val_loss_ = r.val_loss, val_note_ = (r.val_causal ? "" : " (noncausal)") + off_budget(r.val_k, r.configured_k);
  if (options_.format == "none") return;
  const auto now = std::chrono::steady_clock::now();
  const bool last = r.step == steps_;
  if (live_) {
    if (!last && now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    std::string s = line(r);
    if (const auto width = size_t(columns(out_)); s.size() >= width) s.resize(width - 1);
    pause();
    std::fputs(s.c_str(), out_);
    shown_ = true;
  } else if (last || r.evaluated || r.step % options_.every == 0) {
    std::fputs((line(r) + '\n').c_str(), out_);
  }
  std::fflush(out_);
}

}  // namespace agon
