//! `outrigger config check` and `outrigger config show`.

use std::process::ExitCode;

use clap::Subcommand;

use super::{Settings, say, serve};

/// See the module.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say everything that is wrong with the configuration; exit code 78 if anything is.
    Check {
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the effective configuration, where each value comes from, with secrets hidden.
    Show {
        #[command(flatten)]
        settings: Settings,
    },
}

impl Command {
    pub(super) fn run(self) -> ExitCode {
        let (Self::Check { settings } | Self::Show { settings }) = &self;
        let loaded = match serve::load(settings) {
            Ok(loaded) => loaded,
            Err(code) => return code,
        };
        match self {
            Self::Check { .. } => say(&"the configuration is valid"),
            Self::Show { .. } => say(&loaded.show().trim_end()),
        }
        ExitCode::SUCCESS
    }
}
