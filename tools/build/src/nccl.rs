//! Where the headers lie that compiling against NCCL needs: NCCL's own and
//! CUDA's.
//!
//! Shared by `xtask` and by the build scripts of crates that talk to NCCL.
//! They compile `torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp` with
//! `USE_C10D_NCCL` defined, the folders given here and libtorch's own two, as
//! C++20; the symbols are in `libtorch_cuda` (`-ltorch_cuda`), which finds
//! `libnccl.so.2` by itself. No CUDA compiler is needed.
//!
//! torch's wheel depends on packages with nearly all of the headers, which pip
//! puts beside it; `cargo xtask setup --nccl` adds the two that carry the rest.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The environment variable with folders of one's own, colon separated. A build
/// script has to tell cargo to run it again when it changes.
pub const VARIABLE: &str = "SPARK_CUDA_INCLUDE";

/// One header out of each package that is needed.
const HEADERS: [&str; 8] = [
    "nccl.h",
    "cuda.h",
    "cuda_runtime.h",
    "cublas_v2.h",
    "cusparse.h",
    "cusolverDn.h",
    "crt/host_config.h",
    "nv/target",
];

/// Where a compiler looks without being told.
const SYSTEM: [&str; 2] = ["/usr/local/include", "/usr/include"];

/// The folders with NCCL's and CUDA's headers, for a libtorch whose libraries
/// lie in `lib`: those that `SPARK_CUDA_INCLUDE` lists, or the ones that pip put
/// beside the torch package.
///
/// # Errors
/// Headers are missing, or a folder listed is none; one sentence says which and
/// what to do.
pub fn include_folders(lib: &Path) -> Result<Vec<PathBuf>, String> {
    match own_list() {
        Some(list) => listed(&list),
        None => beside_torch(lib),
    }
}

/// Folders of the user's own, if any are listed.
pub fn own_list() -> Option<OsString> {
    env::var_os(VARIABLE).filter(|list| !list.is_empty())
}

/// The folders in `list`, checked.
fn listed(list: &OsStr) -> Result<Vec<PathBuf>, String> {
    let folders: Vec<PathBuf> = env::split_paths(list).collect();
    if let Some(folder) = folders.iter().find(|folder| !folder.is_absolute() || !folder.is_dir()) {
        return Err(format!(
            "{VARIABLE} lists {folder:?}, but every entry must be the absolute path of a folder: \
             correct it, or unset it to use the headers beside torch"
        ));
    }
    let missing = missing(folders.iter().map(PathBuf::as_path).chain(SYSTEM.map(Path::new)));
    if missing.is_empty() {
        return Ok(folders);
    }
    Err(format!(
        "NCCL needs the headers {}, which are in none of the folders that {VARIABLE} lists: add \
         those that hold them, or unset it to use the headers beside torch",
        missing.join(", ")
    ))
}

/// Those of the folders `nvidia/*/include` beside torch in site-packages that hold
/// what is needed.
fn beside_torch(lib: &Path) -> Result<Vec<PathBuf>, String> {
    // site-packages/torch/lib
    let packages = lib.ancestors().nth(2).unwrap_or(lib).join("nvidia");
    let mut folders: Vec<PathBuf> = packages
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        // Newer releases of CUDA's C++ library keep its headers a folder down.
        .flat_map(|entry| {
            let include = entry.path().join("include");
            [include.clone(), include.join("cccl")]
        })
        .filter(|folder| HEADERS.iter().any(|header| folder.join(header).is_file()))
        .collect();
    folders.sort();
    let missing = missing(folders.iter().map(PathBuf::as_path));
    if missing.is_empty() {
        return Ok(folders);
    }
    Err(format!(
        "NCCL needs the headers {}, which are not in {}: `cargo xtask setup --nccl` fetches them \
         for the libtorch that it fetches, and for another one export {VARIABLE} with the folders \
         of NCCL's and CUDA's headers, colon separated",
        missing.join(", "),
        packages.join("*").join("include").display()
    ))
}

/// Those of [`HEADERS`] that are in none of `folders`.
fn missing<'a>(folders: impl Iterator<Item = &'a Path> + Clone) -> Vec<&'static str> {
    let found = |header: &&str| folders.clone().any(|folder| folder.join(header).is_file());
    HEADERS.into_iter().filter(|header| !found(header)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder like site-packages, with these headers beside torch.
    fn site_packages(name: &str, headers: &[&str]) -> PathBuf {
        let root = env::temp_dir().join(format!("nccl-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("torch/lib")).unwrap();
        for header in headers {
            let package = if *header == "nccl.h" { "nccl" } else { "cu13" };
            let file = root.join("nvidia").join(package).join("include").join(header);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        root
    }

    #[test]
    fn the_folders_are_those_beside_torch() {
        let root = site_packages("whole", &HEADERS);
        let found = beside_torch(&root.join("torch/lib"));
        fs::remove_dir_all(&root).unwrap();
        let expected = ["cu13", "nccl"].map(|name| root.join("nvidia").join(name).join("include"));
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn what_is_missing_is_named_with_what_fetches_it() {
        let root = site_packages("half", &HEADERS[..6]);
        let error = beside_torch(&root.join("torch/lib")).unwrap_err();
        fs::remove_dir_all(&root).unwrap();
        for part in ["headers crt/host_config.h, nv/target,", "setup --nccl", VARIABLE] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        let error = beside_torch(Path::new("/nowhere/torch/lib")).unwrap_err();
        assert!(error.contains("nccl.h") && error.contains("/nowhere/nvidia"), "{error}");
    }

    #[test]
    fn folders_of_ones_own_are_taken_as_they_are_once_whole() {
        let root = site_packages("own", &HEADERS);
        let folders = ["nccl", "cu13"].map(|name| root.join("nvidia").join(name).join("include"));
        let found = listed(&env::join_paths(&folders).unwrap());
        // Without the first nccl.h could only be the system's.
        let half = listed(folders[1].as_os_str());
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found.unwrap(), folders);
        if !SYSTEM.iter().any(|folder| Path::new(folder).join("nccl.h").exists()) {
            let error = half.unwrap_err();
            assert!(error.contains("headers nccl.h,") && error.contains(VARIABLE), "{error}");
        }
        for list in ["include", "/nowhere/include", "/usr/include:"] {
            let error = listed(OsStr::new(list)).unwrap_err();
            assert!(error.contains("absolute path of a folder"), "{error}");
        }
    }
}
