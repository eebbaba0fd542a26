//! libtorch's half for CUDA, which programs load where it can be used.

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY, RTLD_NOW};

/// NVIDIA's driver, as libtorch itself looks for it.
const DRIVER: &str = "libcuda.so.1";
/// What libtorch has for CUDA; beside the libraries that the program is linked to.
const LIBRARY: &str = "libtorch_cuda.so";

/// Loads what libtorch has for CUDA, if NVIDIA's driver is there and libtorch was built for it: it
/// and what it needs are gigabytes, whose loading takes half of a program's start. Its operators
/// register themselves. To be called before anything asks for devices.
pub fn load_cuda() {
    if open(DRIVER, RTLD_LAZY).is_err() {
        return;
    }
    if let Err(error) = open(LIBRARY, RTLD_NOW | RTLD_GLOBAL) {
        let error = error.to_string();
        // A libtorch for processors alone has none.
        if !error.contains(&format!("{LIBRARY}: cannot open shared object file")) {
            tracing::warn!("CUDA is not used, since {LIBRARY} cannot be loaded: {error}");
        }
    }
}

/// Opens a library for as long as the process lives.
// Initialisers of a library run when it is opened; NVIDIA's and libtorch's are made for that.
#[allow(unsafe_code)]
fn open(name: &str, flags: i32) -> Result<(), libloading::Error> {
    let library = unsafe { Library::open(Some(name), flags) }?;
    std::mem::forget(library);
    Ok(())
}
