//! Other programs: run them, and say which one failed.

use std::convert::Infallible;
use std::env;
use std::fmt::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Cargo, the one that runs this program, in the checkout at `root`.
pub fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    cargo
}

/// Runs `command` in sight of the user.
///
/// # Errors
/// When it cannot be started or does not end well; the message is its command
/// line.
pub fn run(command: &mut Command) -> Result<()> {
    let line = command_line(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Becomes `command`: it goes on in this process, with its standard streams, so
/// that every signal and its exit status are the command's own. Returns only if
/// it cannot be started.
///
/// # Errors
/// When it cannot be started; the message is its command line.
pub fn replace(command: &mut Command) -> Result<Infallible> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", command_line(command)))
}

/// Runs `command` unseen; what it wrote to standard output.
///
/// # Errors
/// As [`run`], with what it wrote to standard error.
pub fn read(command: &mut Command) -> Result<String> {
    let line = command_line(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it; a long argument (an inline script) is cut.
fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        let first_line = argument.lines().next().unwrap_or_default();
        let cut = if first_line.len() < argument.len() { " …" } else { "" };
        let _ = write!(line, " {first_line}{cut}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = read(Command::new("sh").args(["-c", "echo sorry >&2; exit 3"])).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("`sh -c echo sorry"), "{message}");
        assert!(message.contains('3') && message.ends_with("sorry"), "{message}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let mut command = Command::new("/nowhere/python3");
        for error in [run(&mut command).unwrap_err(), replace(&mut command).unwrap_err()] {
            assert!(format!("{error:#}").contains("/nowhere/python3"));
        }
    }
}
