//! The edge to C: what comes in is checked, what goes wrong becomes a status
//! and a sentence.

// Pointers from a host are read here; each function says what it takes for
// granted beyond what it checks.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use backbone::hub;
use backbone::plugin::abi::{self, ErrorText, RawTensor, Status};
use backbone::{Error, Result};
use tch::Tensor;

thread_local! {
    /// Where this thread last panicked, for the sentence about it.
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a function's body: its error, or its panic, becomes the status and the
/// sentence in `error`.
///
/// # Safety
/// `error` is NULL or may be written to.
pub unsafe fn call(error: ErrorText, body: impl FnOnce() -> Result<()>) -> Status {
    let Err((status, sentence)) = caught(body) else { return abi::OK };
    if !error.is_null() {
        // The caller vouches for the place.
        unsafe { error.write(give_string(&sentence)) };
    }
    status
}

/// Defines functions of the interface that may fail: each gets `error` as its last parameter, for
/// the sentence on what went wrong in its body, and returns a status. The compiler checks that it
/// is what the interface says after `as`.
macro_rules! fallible {
    ($(
        fn $name:ident($($parameter:ident: $type:ty),* $(,)?) as $kind:ident $body:block
    )*) => { $(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            $($parameter: $type,)*
            error: backbone::plugin::abi::ErrorText,
        ) -> backbone::plugin::abi::Status {
            unsafe { $crate::edge::call(error, || $body) }
        }

        const _: backbone::plugin::abi::$kind = $name;
    )* };
}
pub(crate) use fallible;

/// Runs a function's body for our own C++, which makes an exception of the sentence.
pub fn guarded<T>(body: impl FnOnce() -> Result<T>) -> std::result::Result<T, String> {
    caught(body).map_err(|(_, sentence)| sentence)
}

/// What `body` gives; its error, or its panic, in words.
fn caught<T>(body: impl FnOnce() -> Result<T>) -> std::result::Result<T, (Status, String)> {
    quiet_panics();
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err((status_of(&error), error.to_string())),
        Err(panic) => Err(describe(panic.as_ref())),
    }
}

/// Runs what cannot fail and must not unwind either.
pub fn quietly(body: impl FnOnce()) {
    quiet_panics();
    // A destructor that panics leaves nothing to be done about it.
    let _ = catch_unwind(AssertUnwindSafe(body));
}

/// Keeps panics, which end up as error sentences, off the host's standard
/// error. The hook belongs to this library's own copy of the standard library:
/// that of a host written in Rust is another.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            PANICKED_AT.set(place);
        }));
    });
}

fn status_of(error: &Error) -> Status {
    match error {
        Error::Invalid { .. } => abi::INVALID,
        Error::Hub(hub::Error::Invalid { .. }) => abi::INVALID,
        Error::Io { .. } | Error::Hub(_) => abi::IO,
        Error::Format { .. } => abi::FORMAT,
        Error::Weights(_) | Error::Incomplete(_) => abi::WEIGHTS,
        Error::Torch(_) => abi::TORCH,
        _ => abi::INTERNAL,
    }
}

/// A panic in words. tch's operators panic with libtorch's complaint (no
/// memory, say) in Rust's debug form, the C++ backtrace behind it.
fn describe(panic: &(dyn Any + Send)) -> (Status, String) {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    if let Some((_, complaint)) = text.split_once("Torch(\"") {
        let end = complaint.find("\\nException raised from").unwrap_or(complaint.len());
        let complaint = complaint[..end].trim_end_matches("\")").replace("\\n", "\n");
        return (abi::TORCH, format!("libtorch: {}", complaint.replace("\\\"", "\"").trim()));
    }
    let place = PANICKED_AT.take();
    (abi::INTERNAL, format!("a fault in libspark_backbone, please report it: {text} ({place})"))
}

/// What `pointer`, called `operand`, points to.
///
/// # Errors
/// NULL.
///
/// # Safety
/// Unless NULL, it points to a `T` that lives and is not written to as long as
/// the reference is used.
pub unsafe fn borrow<'a, T>(operand: &str, pointer: *const T) -> Result<&'a T> {
    unsafe { pointer.as_ref() }.ok_or_else(|| null(operand))
}

/// The tensor that `pointer`, called `operand`, points to; not to be dropped.
///
/// # Errors
/// NULL.
///
/// # Safety
/// Unless NULL, it points to an `at::Tensor` that lives as long as the result
/// is used.
pub unsafe fn borrow_tensor(
    operand: &str,
    pointer: *const RawTensor,
) -> Result<ManuallyDrop<Tensor>> {
    if pointer.is_null() {
        return Err(null(operand));
    }
    Ok(ManuallyDrop::new(unsafe { Tensor::from_ptr(pointer.cast_mut().cast()) }))
}

/// A place to write a result to.
///
/// # Errors
/// NULL.
///
/// # Safety
/// Unless NULL, a `T` may be written there.
pub unsafe fn write<T>(operand: &str, place: *mut T, value: T) -> Result<()> {
    if place.is_null() {
        return Err(null(operand));
    }
    unsafe { place.write(value) };
    Ok(())
}

/// Refuses a place that is NULL, before any work is done for it.
///
/// # Errors
/// NULL.
pub fn check_place<T>(operand: &str, place: *const T) -> Result<()> {
    if place.is_null() { Err(null(operand)) } else { Ok(()) }
}

/// A string from the host.
///
/// # Errors
/// NULL, or bytes that are not UTF-8.
///
/// # Safety
/// Unless NULL, it ends with NUL and is not written to as long as the result
/// is used.
pub unsafe fn text<'a>(operand: &str, pointer: *const c_char) -> Result<&'a str> {
    check_place(operand, pointer)?;
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().map_err(|error| {
        let value = format!("{:?}", bytes.to_string_lossy());
        Error::invalid(operand, value, format!("it must be UTF-8: {error}"))
    })
}

/// A string from the host that may be NULL.
///
/// # Errors
/// Bytes that are not UTF-8.
///
/// # Safety
/// As [`text`].
pub unsafe fn optional_text<'a>(operand: &str, pointer: *const c_char) -> Result<Option<&'a str>> {
    if pointer.is_null() { Ok(None) } else { unsafe { text(operand, pointer) }.map(Some) }
}

/// Hands a tensor to the host, which ends it with `spark_tensor_destroy`.
pub fn give_tensor(tensor: Tensor) -> *mut RawTensor {
    ManuallyDrop::new(tensor).as_mut_ptr().cast()
}

/// Hands a string to the host, which ends it with `spark_string_free`.
pub fn give_string(text: &str) -> *mut c_char {
    // C would take a NUL inside for the end.
    let text = text.replace('\0', "\u{fffd}");
    CString::new(text).unwrap_or_default().into_raw()
}

fn null(operand: &str) -> Error {
    Error::invalid(operand, "NULL", "it must point to one")
}
