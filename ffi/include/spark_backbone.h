/* SparK backbones for any host on libtorch: the C interface of
 * libspark_backbone.so.
 *
 *     char *error = NULL;
 *     SparkBackbone *backbone = NULL;
 *     if (spark_backbone_create("{\"model\": \"resnet50\", \"weights\": \"r50.pth\"}",
 *                               &backbone, &error) != SPARK_OK) {
 *         fprintf(stderr, "%s\n", error);
 *         spark_string_free(error);
 *     }
 *
 * Rules that hold for every function:
 * - What can fail returns a SparkStatus. If that is not SPARK_OK, nothing was
 *   changed, no other output was written, and *error (unless `error` is NULL)
 *   is a sentence that names the operand, its value and the rule; it is the
 *   caller's to free with spark_string_free. On success *error is untouched.
 * - No C++ exception and no Rust panic leaves a function.
 * - Strings are UTF-8 and end with NUL. A SparkTensor is an at::Tensor of the
 *   process's one libtorch; pointers to it are borrowed when passed in and
 *   owned by the caller when handed out.
 * - Functions that take a `const SparkBackbone *` may run in several threads
 *   at once; the others may not run beside any other on the same backbone.
 *   Gradients, no-grad and inference mode, and autocast are the calling
 *   thread's, as for any libtorch operator.
 *
 * C++ programs include spark/backbone.hpp instead, which wraps this interface
 * in a torch::nn::Module. A library of one's own that exports the functions
 * declared here is a plugin that any such host can load at run time.
 */
#ifndef SPARK_BACKBONE_H
#define SPARK_BACKBONE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Rises whenever a declaration below changes in meaning. A host compares it
 * with spark_abi_version() before it calls anything else. */
#define SPARK_ABI_VERSION 1

/* A backbone with its parameters. */
typedef struct SparkBackbone SparkBackbone;

/* An at::Tensor. */
typedef struct SparkTensor SparkTensor;

/* How a call ended. */
typedef int32_t SparkStatus;
enum {
    SPARK_OK = 0,
    SPARK_INVALID = 1, /* an argument breaks a rule */
    SPARK_IO = 2,      /* a file cannot be read or written, or not be fetched */
    SPARK_FORMAT = 3,  /* a file is not what it should be */
    SPARK_WEIGHTS = 4, /* weights do not fit the model */
    SPARK_TORCH = 5,   /* libtorch refused an operation */
    SPARK_INTERNAL = 6 /* a fault in the library */
};

/* ---- Versions: these three cannot fail and need no backbone. ---- */

/* The SPARK_ABI_VERSION that the library was built with. */
uint32_t spark_abi_version(void);

/* The library's own release, such as "0.1.0". Static. */
const char *spark_library_version(void);

/* The libtorch release that the library was built against, such as "2.13.0",
 * without the suffix that tells builds apart. Static. A process must have this
 * one: libtorch's C++ interface differs between releases. */
const char *spark_libtorch_version(void);

/* ---- Life of a backbone ---- */

/* Creates a backbone. `config` is the name of a model, or a JSON object:
 *
 *     key             default    meaning
 *     model           -          timm's name, such as "resnet50", or a .pt2 file
 *                                of torch.export, such as "my.pt2"; modules whose
 *                                outputs are its stages may follow: "my.pt2:a,b";
 *                                on a hub: "hf:owner/name/my.pt2"
 *     weights         null       file to load; every format and naming that
 *                                `pretrain inspect` knows; on a hub:
 *                                "hf:owner/name[@revision][/file]"
 *     strict          true       refuse weights that do not fill the encoder
 *     out_indices     all        stages to put out, ascending, 0 the finest
 *     in_chans        3          channels of the image; a .pt2 file has its own
 *     drop_path_rate  0          of the last block; earlier ones rise to it; a
 *                                .pt2 file's own rates stay with 0
 *     dtype           "float32"  or "float64", "float16", "bfloat16"
 *     device          "cpu"      or "cuda", "cuda:1", "mps"
 *     freeze_at       0          see spark_backbone_freeze
 *     norm_eval       false      batch norms use their running statistics
 *                                in training, too
 *     training        true       see spark_backbone_set_training
 *
 * Without weights, parameters are those in the .pt2 file; of other models they
 * are drawn from libtorch's generator. */
SparkStatus spark_backbone_create(const char *config, SparkBackbone **backbone, char **error);

/* A deep copy: equal parameters in memory of their own, equal settings. */
SparkStatus spark_backbone_clone(const SparkBackbone *backbone, SparkBackbone **copy,
                                 char **error);

/* What the network of a .pt2 file computes, as a vector of uint8 that
 * spark_backbone_restore takes, so that a copy elsewhere needs no file; *graph
 * is NULL for other models. A plugin need not have these two functions. */
SparkStatus spark_backbone_graph(const SparkBackbone *backbone, SparkTensor **graph, char **error);

/* Creates a backbone with the settings of spark_backbone_config and a graph of
 * spark_backbone_graph. Its parameters and buffers have no values yet: copy
 * those of the original. */
SparkStatus spark_backbone_restore(const char *config, const SparkTensor *graph,
                                   SparkBackbone **backbone, char **error);

/* Ends a backbone; NULL is allowed. Tensors handed out before stay valid. */
void spark_backbone_destroy(SparkBackbone *backbone);

/* The settings as they are now, as a JSON object that spark_backbone_create
 * takes; without the weights' file, since parameters may have changed since.
 * To be freed with spark_string_free. */
SparkStatus spark_backbone_config(const SparkBackbone *backbone, char **json, char **error);

/* ---- Shape ---- */

/* One map that forward puts out. */
typedef struct SparkLevel {
    int64_t stage;    /* 0 the finest */
    int64_t channels; /* of the map */
    int64_t stride;   /* input pixels per position, along each side */
} SparkLevel;

/* How many maps forward puts out. */
SparkStatus spark_backbone_level_count(const SparkBackbone *backbone, size_t *count, char **error);

/* Level `index`, finest first. */
SparkStatus spark_backbone_level(const SparkBackbone *backbone, size_t index, SparkLevel *level,
                                 char **error);

/* ---- Forward ---- */

/* Runs the backbone on `input`, [N, in_chans, H, W] of the parameters' type
 * and device (under autocast: any floating type), already normalised, sides no
 * smaller than the stride of the last stage. Writes one owned tensor,
 * [N, channels, ~H/stride, ~W/stride], to each of the `count` places of
 * `outputs`; `count` must be the number of levels. */
SparkStatus spark_backbone_forward(const SparkBackbone *backbone, const SparkTensor *input,
                                   SparkTensor **outputs, size_t count, char **error);

/* Not 0: batch norms normalise with the batch's statistics and update their
 * running ones, drop-path is active. 0: evaluation. A new backbone trains, as
 * modules of PyTorch do. */
SparkStatus spark_backbone_set_training(SparkBackbone *backbone, int32_t training, char **error);

/* Freezes the first stages: 0 none, 1 the stem, 2 the stem and the first stage,
 * … (detectron2's MODEL.BACKBONE.FREEZE_AT; mmdet's frozen_stages is one less).
 * Frozen parameters require no gradient, those of other stages do, and frozen
 * batch norms and drop-paths run as in evaluation. */
SparkStatus spark_backbone_freeze(SparkBackbone *backbone, int32_t freeze_at, char **error);

/* Not 0: batch norms normalise with their running statistics in training, too,
 * and leave them as they are (mmdet's norm_eval). */
SparkStatus spark_backbone_set_norm_eval(SparkBackbone *backbone, int32_t norm_eval, char **error);

/* Converts floating-point tensors to `dtype` and moves all tensors to
 * `device`, in place: whoever holds them sees the change. NULL leaves either
 * as it is. */
SparkStatus spark_backbone_to(SparkBackbone *backbone, const char *dtype, const char *device,
                              char **error);

/* ---- Parameters and buffers ---- */

enum {
    SPARK_PARAMETER = 0, /* trained */
    SPARK_BUFFER = 1,    /* saved, not trained: batch norms' statistics */
    SPARK_KEPT = 2       /* saved, though no map depends on it: what lies behind
                          * the last of out_indices, ConvNeXt's last norm. Stays
                          * as it was loaded; spark_backbone_to leaves it alone. */
};

/* How many tensors of this kind there are. */
SparkStatus spark_backbone_tensor_count(const SparkBackbone *backbone, int32_t kind, size_t *count,
                                        char **error);

/* Tensor `index` of a kind, in the order of names. `*name`, in the model's own
 * naming (timm's for ResNet, the official one for ConvNeXt, a .pt2 file's own),
 * lives as long as the backbone. `*tensor` is owned by the caller and shares storage, gradient
 * and autograd identity with the backbone's: an optimizer on it trains the
 * backbone. */
SparkStatus spark_backbone_tensor(const SparkBackbone *backbone, int32_t kind, size_t index,
                                  const char **name, SparkTensor **tensor, char **error);

/* ---- Weight files ---- */

/* Loads the file at `path`: every format and naming, found out from its
 * content; pickles are not executed. Unless `strict` is 0, the file must fill
 * the encoder. `report` may be NULL; otherwise *report says what matched, to
 * be freed with spark_string_free. */
SparkStatus spark_backbone_load(SparkBackbone *backbone, const char *path, int32_t strict,
                                char **report, char **error);

/* Writes the encoder to `path`, whole or not at all. The ending decides the
 * format: .safetensors, .pth (torch.save), or .pkl (detectron2's). `naming` is
 * "timm", "official", "torchvision", "detectron2" or "mmdet"; NULL is the
 * model's own. The network of a .pt2 file has its own names alone, is written
 * with what no map depends on, and may become a .pt2 file again. */
SparkStatus spark_backbone_save(const SparkBackbone *backbone, const char *path,
                                const char *naming, char **error);

/* ---- Tensors, for hosts that do not include libtorch's headers ---- */

/* A float32 CPU tensor with a copy of `data`: the product of the `dims` sizes
 * in `shape` many numbers, rows last. */
SparkStatus spark_tensor_create(const float *data, const int64_t *shape, size_t dims,
                                SparkTensor **tensor, char **error);

/* The number of dimensions, and, in the first `capacity` places of `shape`
 * (which may be NULL if `capacity` is 0), the sizes. */
SparkStatus spark_tensor_shape(const SparkTensor *tensor, int64_t *shape, size_t capacity,
                               size_t *dims, char **error);

/* Copies the numbers to `data` as float32, rows last, whatever the tensor's
 * type and device; `count` must be how many there are. */
SparkStatus spark_tensor_copy(const SparkTensor *tensor, float *data, size_t count, char **error);

/* Ends a tensor that was handed out; NULL is allowed. */
void spark_tensor_destroy(SparkTensor *tensor);

/* Frees a string that was handed out; NULL is allowed. */
void spark_string_free(char *string);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* SPARK_BACKBONE_H */
