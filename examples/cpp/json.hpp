// A JSON parser for golden.json: no escapes in strings, no true, false or null.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

struct Json {
  double number = 0;
  std::string text;
  std::vector<std::string> keys;  // of an object, in the order of `items`
  std::vector<Json> items;        // of an object or an array

  bool has(const std::string& key) const { return std::find(keys.begin(), keys.end(), key) != keys.end(); }
  const Json& operator[](const std::string& key) const {
    if (!has(key)) throw std::runtime_error("no \"" + key + "\" in the JSON object");
    return items[std::find(keys.begin(), keys.end(), key) - keys.begin()];
  }
};

class JsonReader {
 public:
  static Json read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": no such file");
    JsonReader reader{{std::istreambuf_iterator<char>(file), {}}};
    Json content = reader.value();
    if (reader.peek() != '\0') reader.fail();
    return content;
  }

 private:
  explicit JsonReader(std::string text) : text_(std::move(text)) {}

  [[noreturn]] void fail() const { throw std::runtime_error("JSON: unexpected at byte " + std::to_string(at_)); }

  char peek() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  bool take(char expected) {
    if (peek() != expected) return false;
    ++at_;
    return true;
  }

  Json value() {
    Json result;
    if (take('{') || take('[')) {
      const bool object = text_[at_ - 1] == '{';
      const char end = object ? '}' : ']';
      if (take(end)) return result;
      do {
        if (object) {
          result.keys.push_back(string());
          if (!take(':')) fail();
        }
        result.items.push_back(value());
      } while (take(','));
      if (!take(end)) fail();
    } else if (peek() == '"') {
      result.text = string();
    } else {
      char* end = nullptr;
      const char* start = text_.c_str() + at_;
      result.number = std::strtod(start, &end);
      if (end == start) fail();
      at_ += end - start;
    }
    return result;
  }

  std::string string() {
    if (!take('"')) fail();
    const size_t start = at_;
    at_ = text_.find_first_of("\"\\", start);
    if (at_ == std::string::npos || text_[at_] == '\\') fail();
    return text_.substr(start, at_++ - start);
  }

  std::string text_;
  size_t at_ = 0;
};
