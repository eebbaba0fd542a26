//! The C interface; `include/spark_backbone.h` documents each function, and
//! `backbone::plugin::abi` has its type.

// Functions with pointers from a host: `spark_backbone.h` says what a host
// vouches for, `edge` checks the rest.
#![allow(unsafe_code)]

mod tensor;

use std::ffi::{c_char, c_int};

use backbone::plugin::abi::{self, Level, RawBackbone, RawTensor};
use backbone::weights::Naming;
use backbone::{Error, Result};
use tch::{Device, Kind, Tensor};

use crate::bridge;
use crate::config;
use crate::edge::{
    borrow, borrow_tensor, check_place, fallible, give_string, give_tensor, optional_text, quietly,
    text, write,
};
use crate::handle::{Handle, Named};

/// What the interface calls a backbone is a [`Handle`].
pub(crate) unsafe fn handle<'a>(backbone: *const RawBackbone) -> Result<&'a Handle> {
    unsafe { borrow("backbone", backbone.cast::<Handle>()) }
}

fn give_handle(handle: Handle) -> *mut RawBackbone {
    Box::into_raw(Box::new(handle)).cast()
}

#[unsafe(no_mangle)]
extern "C" fn spark_abi_version() -> u32 {
    abi::VERSION
}

#[unsafe(no_mangle)]
extern "C" fn spark_library_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[unsafe(no_mangle)]
extern "C" fn spark_libtorch_version() -> *const c_char {
    BUILT_AGAINST[MARK.len()..].as_ptr().cast()
}

/// Stands before the release in the library's file, where the Python package reads it before it
/// loads the library.
const MARK: &str = "spark_backbone for libtorch ";
const BUILT_AGAINST: &str =
    concat!("spark_backbone for libtorch ", env!("SPARK_LIBTORCH_VERSION"), "\0");

fallible! {
    fn spark_backbone_create(config: *const c_char, backbone: *mut *mut RawBackbone) as Create {
        if let Some(reason) = bridge::refusal() {
            return Err(Error::invalid("libspark_backbone", "loaded twice", reason));
        }
        check_place("backbone", backbone)?;
        let handle = Handle::new(config::parse(text("config", config)?)?)?;
        write("backbone", backbone, give_handle(handle))
    }

    fn spark_backbone_graph(backbone: *const RawBackbone, graph: *mut *mut RawTensor) as Graph {
        check_place("graph", graph)?;
        let bytes = handle(backbone)?.graph()?;
        let bytes = bytes.map(|bytes| give_tensor(Tensor::from_slice(&bytes)));
        write("graph", graph, bytes.unwrap_or(std::ptr::null_mut()))
    }

    fn spark_backbone_restore(
        config: *const c_char,
        graph: *const RawTensor,
        backbone: *mut *mut RawBackbone,
    ) as Restore {
        if let Some(reason) = bridge::refusal() {
            return Err(Error::invalid("libspark_backbone", "loaded twice", reason));
        }
        check_place("backbone", backbone)?;
        let config = config::parse(text("config", config)?)?;
        let graph = bytes_of("graph", &*borrow_tensor("graph", graph)?)?;
        write("backbone", backbone, give_handle(Handle::restored(config, &graph)?))
    }

    fn spark_backbone_clone(backbone: *const RawBackbone, copy: *mut *mut RawBackbone) as Clone {
        check_place("copy", copy)?;
        write("copy", copy, give_handle(handle(backbone)?.deep_clone()?))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn spark_backbone_destroy(backbone: *mut RawBackbone) {
    quietly(|| {
        if !backbone.is_null() {
            drop(unsafe { Box::from_raw(backbone.cast::<Handle>()) });
        }
    });
}

fallible! {
    fn spark_backbone_config(backbone: *const RawBackbone, json: *mut *mut c_char) as Config {
        check_place("json", json)?;
        let config = serde_json::to_string(&handle(backbone)?.config());
        let config = config.map_err(|error| {
            Error::invalid("config", "not expressible", format!("JSON has no form: {error}"))
        })?;
        write("json", json, give_string(&config))
    }

    fn spark_backbone_level_count(backbone: *const RawBackbone, count: *mut usize) as LevelCount {
        write("count", count, handle(backbone)?.levels().len())
    }

    fn spark_backbone_level(backbone: *const RawBackbone, index: usize, level: *mut Level) as GetLevel {
        let levels = handle(backbone)?.levels();
        let (stage, shape) = *element("level", &levels, index)?;
        let Ok(stage) = i64::try_from(stage) else { unreachable!("there are few stages") };
        let found = Level { stage, channels: shape.channels, stride: shape.stride };
        write("level", level, found)
    }

    fn spark_backbone_forward(
        backbone: *const RawBackbone,
        input: *const RawTensor,
        outputs: *mut *mut RawTensor,
        count: usize,
    ) as Forward {
        check_place("outputs", outputs)?;
        let (backbone, input) = (handle(backbone)?, borrow_tensor("input", input)?);
        let levels = backbone.levels().len();
        if count != levels {
            let rule = format!("the backbone puts out {levels} maps");
            return Err(Error::invalid("count", count, rule));
        }
        for (index, map) in backbone.forward(&input)?.into_iter().enumerate() {
            // In bounds: there are as many maps as places.
            outputs.add(index).write(give_tensor(map));
        }
        Ok(())
    }

    fn spark_backbone_set_training(backbone: *mut RawBackbone, training: c_int) as Set {
        handle(backbone)?.set_training(training != 0);
        Ok(())
    }

    fn spark_backbone_freeze(backbone: *mut RawBackbone, freeze_at: c_int) as Set {
        handle(backbone)?.freeze(i64::from(freeze_at))
    }

    fn spark_backbone_set_norm_eval(backbone: *mut RawBackbone, norm_eval: c_int) as Set {
        handle(backbone)?.set_norm_eval(norm_eval != 0);
        Ok(())
    }

    fn spark_backbone_to(backbone: *mut RawBackbone, dtype: *const c_char, device: *const c_char) as To {
        let kind = optional_text("dtype", dtype)?.map(config::kind).transpose()?;
        let device = optional_text("device", device)?.map(config::device).transpose()?;
        handle(backbone)?.to(kind, device)
    }
}

/// What a tensor of bytes holds.
fn bytes_of(operand: &str, tensor: &Tensor) -> Result<Vec<u8>> {
    if !tensor.defined() || tensor.kind() != Kind::Uint8 || tensor.dim() != 1 {
        let rule = "it must be a vector of uint8, from spark_backbone_graph";
        return Err(Error::invalid(operand, "another tensor", rule));
    }
    Ok(Vec::<u8>::try_from(tensor.f_to_device(Device::Cpu)?.f_contiguous()?)?)
}

/// The tensors of a kind, parameters or buffers.
unsafe fn tensors<'a>(backbone: *const RawBackbone, kind: i32) -> Result<&'a [Named]> {
    let handle = unsafe { handle(backbone) }?;
    match kind {
        abi::PARAMETER => Ok(handle.parameters()),
        abi::BUFFER => Ok(handle.buffers()),
        abi::KEPT => Ok(handle.kept()),
        _ => {
            let rule = "it must be SPARK_PARAMETER (0), SPARK_BUFFER (1) or SPARK_KEPT (2)";
            Err(Error::invalid("kind", kind, rule))
        }
    }
}

fallible! {
    fn spark_backbone_tensor_count(backbone: *const RawBackbone, kind: i32, count: *mut usize) as TensorCount {
        write("count", count, tensors(backbone, kind)?.len())
    }

    fn spark_backbone_tensor(
        backbone: *const RawBackbone,
        kind: i32,
        index: usize,
        name: *mut *const c_char,
        tensor: *mut *mut RawTensor,
    ) as GetTensor {
        check_place("name", name)?;
        check_place("tensor", tensor)?;
        let named = element("tensor", tensors(backbone, kind)?, index)?;
        let shared = give_tensor(named.tensor.shallow_clone());
        write("tensor", tensor, shared)?;
        write("name", name, named.name.as_ptr())
    }

    fn spark_backbone_load(
        backbone: *mut RawBackbone,
        path: *const c_char,
        strict: c_int,
        report: *mut *mut c_char,
    ) as Load {
        let done = handle(backbone)?.load(text("path", path)?, strict != 0)?;
        if !report.is_null() {
            report.write(give_string(&done.to_string()));
        }
        Ok(())
    }

    fn spark_backbone_save(
        backbone: *const RawBackbone,
        path: *const c_char,
        naming: *const c_char,
    ) as Save {
        let naming = optional_text("naming", naming)?;
        let naming = naming.map(str::parse::<Naming>).transpose()?;
        handle(backbone)?.save(text("path", path)?, naming)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn spark_string_free(string: *mut c_char) {
    quietly(|| {
        if !string.is_null() {
            drop(unsafe { std::ffi::CString::from_raw(string) });
        }
    });
}

/// `list[index]`.
fn element<'a, T>(what: &str, list: &'a [T], index: usize) -> Result<&'a T> {
    list.get(index).ok_or_else(|| {
        let rule = format!("there are {}, counted from 0", list.len());
        Error::invalid(format!("{what} index"), index, rule)
    })
}

// The compiler checks here that the functions that can't fail are what the interface says.
const _: unsafe extern "C" fn() -> u32 = spark_abi_version;
const _: [abi::Version; 2] = [spark_library_version, spark_libtorch_version];
const _: abi::Destroy = spark_backbone_destroy;
const _: abi::StringFree = spark_string_free;
