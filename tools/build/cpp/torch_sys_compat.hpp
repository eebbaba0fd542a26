// Lets torch-sys, generated for one release of libtorch, compile against another: included before
// every C++ file (`-include`), it does nothing but in torch-sys's own.
//
// Each name below is a function that torch-sys calls and that some release lacks or declares with
// other parameters. Where the release has the function, it is called: its parameters fit better
// than `Anything`. Where it does not, the stand-in throws. Nothing in this workspace calls one.
//
// Of all files that are compiled, torch-sys's alone are compiled with GLOG_USE_GLOG_EXPORT.
#if defined(__cplusplus) && defined(GLOG_USE_GLOG_EXPORT)
#include <torch/torch.h>

#include <tuple>

namespace spark_stand_ins {

// Takes any argument, by a conversion of its own, which loses to an exact match.
struct Anything {
  Anything() = default;
  template <typename T>
  Anything(T&&) {}
};

// More parameters than any of the functions has.
#define SPARK_ANYTHING_5 Anything = {}, Anything = {}, Anything = {}, Anything = {}, Anything = {}
#define SPARK_STAND_IN(Result, name)                                                             \
  inline Result name(Anything, SPARK_ANYTHING_5, SPARK_ANYTHING_5, SPARK_ANYTHING_5,              \
                     SPARK_ANYTHING_5) {                                                         \
    TORCH_CHECK(false, "libtorch ", TORCH_VERSION, " has no ", #name, " as torch-sys calls it"); \
  }

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// Gone in 2.15.
SPARK_STAND_IN(at::Tensor, cholesky)
SPARK_STAND_IN(at::Tensor, cholesky_out)
SPARK_STAND_IN(Two, qr)
SPARK_STAND_IN(Two, qr_out)

// New, or with new parameters, after 2.8.
SPARK_STAND_IN(Three, _cudnn_attention_backward)
SPARK_STAND_IN(at::Tensor, _flash_attention_forward_no_dropout_inplace)
SPARK_STAND_IN(Two, _fused_rms_norm)
SPARK_STAND_IN(at::Tensor, _philox_key_fold_in)
SPARK_STAND_IN(at::Tensor, _philox_key_split)
SPARK_STAND_IN(at::Tensor, _philox_normal)
SPARK_STAND_IN(at::Tensor, _philox_normal_)
SPARK_STAND_IN(at::Tensor, _philox_normal_out)
SPARK_STAND_IN(at::Tensor, _philox_uniform)
SPARK_STAND_IN(at::Tensor, _philox_uniform_)
SPARK_STAND_IN(at::Tensor, _philox_uniform_out)
SPARK_STAND_IN(Two, _scaled_dot_product_attention_math_for_mps)
SPARK_STAND_IN(at::Tensor, _scaled_grouped_mm_v2)
SPARK_STAND_IN(at::Tensor, _scaled_mm_v2)
SPARK_STAND_IN(at::Tensor, _scaled_mm_v2_out)
SPARK_STAND_IN(at::Tensor, _upsample_lanczos2d_aa)
SPARK_STAND_IN(at::Tensor, _upsample_lanczos2d_aa_backward)
SPARK_STAND_IN(at::Tensor, _upsample_lanczos2d_aa_backward_out)
SPARK_STAND_IN(at::Tensor, _upsample_lanczos2d_aa_out)
SPARK_STAND_IN(bool, _use_miopen_ctc_loss)
SPARK_STAND_IN(at::Tensor, hash_tensor)
SPARK_STAND_IN(at::Tensor, hash_tensor_out)
SPARK_STAND_IN(Two, miopen_ctc_loss)
SPARK_STAND_IN(Two, miopen_ctc_loss_out)

#undef SPARK_STAND_IN
#undef SPARK_ANYTHING_5

}  // namespace spark_stand_ins

namespace torch {
using namespace spark_stand_ins;
}  // namespace torch
#endif
