// digits.torchscript and sketch.torchscript with LibTorch, compared with the golden vectors.
// golden [CHECKPOINT_DIR]

#include <torch/script.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "json.hpp"

constexpr double kTolerance = 1e-5;

torch::Tensor tensor(const Json& golden) {
  std::vector<int64_t> shape;
  for (const Json& side : golden["shape"].items) shape.push_back(static_cast<int64_t>(side.number));
  std::vector<double> values;
  for (const Json& value : golden["data"].items) values.push_back(value.number);
  const auto type = golden["type"].text == "uint8" ? torch::kUInt8 : torch::kFloat32;
  const auto result = torch::tensor(values, torch::kFloat64).to(type).reshape(shape);
  return golden.has("divide_by") ? result / golden["divide_by"].number : result;
}

std::vector<torch::Tensor> run(torch::jit::Module& model, const torch::Tensor& input) {
  const torch::IValue answer = model.forward({input});
  if (answer.isTensor()) return {answer.toTensor()};
  std::vector<torch::Tensor> outputs;
  for (const torch::IValue& output : answer.toTupleRef().elements()) outputs.push_back(output.toTensor());
  return outputs;
}

// Runs one file on its golden inputs and prints the differences from the golden outputs.
bool agrees(const std::string& folder, const std::string& stem, const std::vector<Json>& cases) {
  const std::string name = stem + ".torchscript";
  torch::jit::Module model = torch::jit::load(folder + "/" + name, torch::kCPU);
  torch::Tensor largest = torch::zeros({});  // a tensor, since its maximum keeps NaN
  int differing = 0;
  for (const Json& item : cases) {
    const auto outputs = run(model, tensor(item["input"]));
    const auto& expected = item["outputs"].items;
    if (outputs.size() != expected.size()) throw std::runtime_error(name + ": wrong number of outputs");
    for (size_t i = 0; i < outputs.size(); ++i) {
      const auto golden = tensor(expected[i]);
      if (outputs[i].sizes() != golden.sizes()) throw std::runtime_error(name + ": an output has the wrong shape");
      largest = torch::maximum(largest, (outputs[i] - golden).abs().max());
    }
    differing += outputs[0].argmax().item<int64_t>() != tensor(expected[0]).argmax().item<int64_t>();
  }
  std::printf("%s: %zu golden vectors, largest difference %.1e, labels differing %d\n", name.c_str(), cases.size(),
              largest.item<double>(), differing);
  return !cases.empty() && largest.item<double>() <= kTolerance && differing == 0;
}

int main(int count, char** arguments) {
  try {
    const std::string folder = count > 1 ? arguments[1] : CHECKPOINT_DIR;
    const Json golden = JsonReader::read(folder + "/golden.json");
    const torch::InferenceMode inference;
    const bool digits = agrees(folder, "digits", golden["digits"].items);
    const bool sketch = agrees(folder, "sketch", golden["sketch"].items);
    return digits && sketch ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
