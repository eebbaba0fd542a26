use std::process::{Command, Output};

use super::*;

/// A folder as the archive unpacks, with a program for torch 2.11 that tells its arguments and
/// where it looks for libraries, and a Python with this torch.
fn unpacked(series: &str, cuda: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let script = |place: &str, text: &str| {
        let place = folder.path().join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, text).unwrap();
        make_executable(&place).unwrap();
    };
    script("run.sh", RUN);
    script("torch-2.11/gpu-check", "#!/bin/sh\necho \"$@ in $LD_LIBRARY_PATH by $PYTHON\"\n");
    let lib = folder.path().join("site/torch/lib");
    fs::create_dir_all(&lib).unwrap();
    if cuda {
        fs::write(lib.join("libtorch_cuda.so"), "").unwrap();
    }
    script("python", &format!("#!/bin/sh\necho {series}\necho {}\n", lib.display()));
    folder
}

fn run_sh(folder: &Path, python: &str) -> Output {
    Command::new(folder.join("run.sh"))
        .env("PYTHON", python)
        .env_remove("LD_LIBRARY_PATH")
        .args(["--only", "layers"])
        .output()
        .unwrap()
}

#[test]
fn the_programs_for_the_torch_that_is_there_are_run_with_it() {
    let folder = unpacked("2.11", true);
    let python = folder.path().join("python");
    let output = run_sh(folder.path(), python.to_str().unwrap());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lib = folder.path().join("site/torch/lib");
    let expected = format!("run --only layers in {} by {}\n", lib.display(), python.display());
    assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_does_not_fit_is_told() {
    let told = |folder: &Path, python: &str| {
        let output = run_sh(folder, python);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let other = unpacked("2.9", true);
    let python = other.path().join("python");
    let text = told(other.path(), python.to_str().unwrap());
    assert!(
        text.contains("has torch 2.9, but this bundle carries programs for: torch-2.11"),
        "{text}"
    );
    let without = unpacked("2.11", false);
    let python = without.path().join("python");
    let text = told(without.path(), python.to_str().unwrap());
    assert!(text.contains("built for processors alone"), "{text}");
    let text = told(other.path(), "/nowhere/python3");
    assert!(text.contains("/nowhere/python3 has no torch: have PYTHON name"), "{text}");
}

/// Two files of bytes that do not compress.
fn files(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut state = 1u64;
    let noise: Vec<u8> = (0..200_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    fs::write(folder.join("large"), &noise).unwrap();
    fs::write(folder.join("small"), &noise[..100]).unwrap();
    vec![
        ("run.sh".into(), folder.join("small")),
        ("torch-2.11/gpu-check".into(), folder.join("large")),
    ]
}

#[test]
fn an_archive_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (files, output) = (files(folder.path()), folder.path().join("bundle.tar.gz"));
    let written = archive::write(&output, "root", &files, 1 << 20).unwrap();
    assert_eq!(written, fs::metadata(&output).unwrap().len());
    let mut archive =
        tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&output).unwrap()));
    let places =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
    let places: Vec<PathBuf> = places.collect();
    assert_eq!(places, [Path::new("root/run.sh"), Path::new("root/torch-2.11/gpu-check")]);

    let error = archive::write(&output, "root", &files, 100 << 10).unwrap_err().to_string();
    assert!(error.starts_with("the bundle would be 0.2 MiB, but it must be at most 0:"), "{error}");
    assert!(error.contains("It holds torch-2.11 0.2 MiB, run.sh 0.0 MiB"), "{error}");
    let mut gone = files.clone();
    gone[1].1 = folder.path().join("gone");
    assert!(archive::write(&output, "root", &gone, 1 << 20).is_err());
    // The one that was there is still there, and nothing besides.
    assert_eq!(fs::metadata(&output).unwrap().len(), written);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn an_output_that_cannot_be_is_refused_at_once() {
    let error = check_output(Path::new("/")).unwrap_err().to_string();
    assert!(error.contains("that is a folder"), "{error}");
    let error = check_output(Path::new("/nowhere/x.tar.gz")).unwrap_err().to_string();
    assert!(error.contains("there is no such folder"), "{error}");
}

/// What is carried is in the checkout.
#[test]
fn every_script_is_there() {
    let root = places::root().unwrap();
    let staging = tempfile::tempdir().unwrap();
    for (place, file) in common(&root, staging.path()).unwrap() {
        assert!(file.is_file(), "{}: {}", place.display(), file.display());
    }
}
