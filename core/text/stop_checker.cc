#include "core/text/stop_checker.h"

#include <deque>
#include <utility>

namespace chorus {

StopChecker::StopChecker(const std::vector<std::string>& stop_strings, bool include_stop)
    : include_stop_(include_stop), nodes_(1) {
  for (size_t i = 0; i < stop_strings.size(); ++i) {
    int32_t node = 0;
    for (const char c : stop_strings[i]) {
      const int64_t key = static_cast<int64_t>(node) << 8 | static_cast<unsigned char>(c);
      const auto [child, inserted] =
          children_.try_emplace(key, static_cast<int32_t>(nodes_.size()));
      if (inserted) nodes_.push_back({.length = nodes_[node].length + 1});
      node = child->second;
    }
    if (node != 0 && nodes_[node].stop < 0) {
      nodes_[node].stop = static_cast<int32_t>(i);
      nodes_[node].stop_length = nodes_[node].length;
    }
  }
  LinkNodes();
}

int32_t StopChecker::Child(int32_t node, unsigned char byte) const {
  const auto child = children_.find(static_cast<int64_t>(node) << 8 | byte);
  return child == children_.end() ? -1 : child->second;
}

int32_t StopChecker::Advance(int32_t node, unsigned char byte) const {
  for (;;) {
    const int32_t child = Child(node, byte);
    if (child >= 0) return child;
    if (node == 0) return 0;
    node = nodes_[node].fallback;
  }
}

// Breadth first, so that a node's fallback, which is shorter, is complete before it.
void StopChecker::LinkNodes() {
  struct Edge {
    int32_t parent;
    unsigned char byte;
    int32_t child;
  };
  std::vector<std::vector<Edge>> edges_by_length;
  for (const auto& [key, child] : children_) {
    const size_t length = nodes_[child].length;
    if (edges_by_length.size() <= length) edges_by_length.resize(length + 1);
    edges_by_length[length].push_back(
        {static_cast<int32_t>(key >> 8), static_cast<unsigned char>(key & 0xFF), child});
  }
  for (const std::vector<Edge>& edges : edges_by_length) {
    for (const Edge& edge : edges) {
      Node& node = nodes_[edge.child];
      node.fallback = edge.parent == 0 ? 0 : Advance(nodes_[edge.parent].fallback, edge.byte);
      const Node& suffix = nodes_[node.fallback];
      if (node.stop < 0 && suffix.stop >= 0) {
        node.stop = suffix.stop;
        node.stop_length = suffix.stop_length;
      }
    }
  }
}

StopChecker::Result StopChecker::Push(std::string_view text) {
  Result result;
  if (is_stopped_) return result;
  for (size_t i = 0; i < text.size(); ++i) {
    state_ = Advance(state_, static_cast<unsigned char>(text[i]));
    const Node& node = nodes_[state_];
    if (node.stop < 0) continue;
    is_stopped_ = true;
    result.emit = std::move(held_);
    result.emit += text.substr(0, i + 1);
    if (!include_stop_) result.emit.resize(result.emit.size() - node.stop_length);
    result.matched_stop_index = node.stop;
    held_.clear();
    return result;
  }
  held_ += text;
  const size_t num_final = held_.size() - nodes_[state_].length;
  result.emit = held_.substr(0, num_final);
  held_.erase(0, num_final);
  return result;
}

std::string StopChecker::Flush() {
  state_ = 0;
  return std::exchange(held_, std::string());
}

}  // namespace chorus
