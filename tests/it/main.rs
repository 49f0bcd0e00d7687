//! The integration tests: one binary, one table of trials, so that what is shared (binaries, a control plane, a node)
//! is started once and ends with the run.
//!
//! `cargo test --test it -- FILTER` runs a part; `--list` names all. A trial that needs what this machine lacks (root, a
//! Debian package) is listed as ignored, with what it needs in its name.

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let trials: Vec<Trial> = Vec::new();
    libtest_mimic::run(&arguments, trials).exit();
}
