// What bridge.rs calls; light enough for the code that cxx generates.
#pragma once

#include <ATen/core/Tensor.h>

#include "rust/cxx.h"
#include "spark_backbone.h"

namespace spark {

bool is_strided(const at::Tensor& tensor);
rust::String device_name(const at::Tensor& tensor);
bool autocasts(const at::Tensor& tensor);

// In torchbind.cpp, so that whoever links this takes the class along.
rust::String refusal();

}  // namespace spark
