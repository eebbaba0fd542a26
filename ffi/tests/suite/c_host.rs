//! The shared library in a plain C program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::{cc, compile, exists, folder, said, succeed};

/// The program, compiled once.
fn host() -> &'static Path {
    static HOST: OnceLock<PathBuf> = OnceLock::new();
    HOST.get_or_init(|| compile(cc(), &["-std=c11", "-pedantic"], "host.c", "host_c"))
}

#[test]
fn every_function_does_what_the_header_says() {
    let said = succeed(Command::new(host()).arg("life").arg(folder("c_life")));
    assert!(said.ends_with("all well\n"), "{said}");
}

#[test]
fn every_bad_input_is_refused_with_a_sentence_and_changes_nothing() {
    let said = succeed(Command::new(host()).arg("errors").arg(folder("c_errors")));
    assert!(said.ends_with("all well\n"), "{said}");
    // The program checks each; here that it looked at all.
    let sentences = said.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    assert_eq!(sentences.count(), 64, "{said}");
}

#[test]
fn it_links_with_lld() {
    if !exists("ld.lld") {
        return println!("skipped: no lld here (Debian and Ubuntu: the package lld)");
    }
    let program = compile(cc(), &["-std=c11", "-fuse-ld=lld"], "host.c", "host_c_lld");
    let said = succeed(Command::new(program).arg("life").arg(folder("c_lld")));
    assert!(said.ends_with("all well\n"), "{said}");
}

/// What valgrind says of `task`: no memory lost, none touched that must not be.
/// What libtorch keeps to the end of the process is still reachable, which is no
/// loss.
fn check_memory(task: &str) {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--leak-check=full", "--show-leak-kinds=definite,indirect"]);
    valgrind.args(["--errors-for-leak-kinds=definite,indirect", "--error-exitcode=9"]);
    valgrind.arg(host()).arg(task).arg(folder(&format!("c_valgrind_{task}")));
    let output = crate::common::output(&mut valgrind);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
#[ignore = "minutes long: cargo xtask test -p spark-ffi --test suite c_host -- --ignored"]
fn valgrind_finds_no_fault_of_ours() {
    assert!(exists("valgrind"), "install valgrind");
    for task in ["life", "errors"] {
        check_memory(task);
    }
}
