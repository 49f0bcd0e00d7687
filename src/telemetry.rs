//! Logging set-up, and metrics as a struct that is passed in.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Sets up logging to standard error for the long-running commands: text on a terminal, JSON lines elsewhere.
/// `RUST_LOG` selects; the default is `info`.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
}
