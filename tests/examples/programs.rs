//! All programs in one, which is the one that it is called: what tests put beside each other under
//! the programs' names.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;

fn main() -> ExitCode {
    engine::program::run(|| {
        let own = std::env::current_exe().context("where does this program lie?")?;
        match own.file_name().and_then(|name| name.to_str()) {
            Some("pretrain") => pretrain::cli::Cli::parse().run().map(|()| ExitCode::SUCCESS),
            Some("classify") => classification::cli::Cli::parse().run().map(|()| ExitCode::SUCCESS),
            Some("detect") => detection::cli::Cli::parse().run(),
            name => bail!("{name:?} is none of pretrain, classify and detect"),
        }
    })
}
