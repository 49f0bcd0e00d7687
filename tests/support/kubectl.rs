//! The real kubectl, as one user, with what it printed.

use std::{
    fmt,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{run, tools::tools};

/// Longer than anything kubectl is asked to do here.
const LIMIT: Duration = Duration::from_secs(120);

/// kubectl with one user's kubeconfig and, once chosen, a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    kubeconfig: PathBuf,
    namespace: Option<String>,
}

/// How a command ended and what it printed.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The command as one would type it.
    pub(crate) command: String,
    /// Exit code; -1 when a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    pub(crate) fn ok(&self) -> bool {
        self.code == 0
    }

    /// Itself when the command succeeded, else an error with all that it printed.
    pub(crate) fn success(self) -> Result<Self> {
        if self.ok() { Ok(self) } else { bail!("{self}") }
    }

    /// Itself when the command failed, else an error.
    pub(crate) fn failure(self) -> Result<Self> {
        if self.ok() { bail!("should have failed: {self}") } else { Ok(self) }
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {self}"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$ {}\n{}{}(exit code {})", self.command, self.stdout, self.stderr, self.code)
    }
}

impl Kubectl {
    pub(crate) fn new(kubeconfig: impl Into<PathBuf>) -> Self {
        Self { kubeconfig: kubeconfig.into(), namespace: None }
    }

    /// The same user in a namespace (`-n`).
    pub(crate) fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Runs it; a non-zero exit is an [`Answer`], not an error.
    pub(crate) fn run(&self, args: &[&str]) -> Result<Answer> {
        self.run_with_input(args, "")
    }

    /// The same with text on standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Result<Answer> {
        let mut command = Command::new(tools()?.path("kubectl"));
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        // At the end, but before what belongs to a command inside a container.
        if let Some(namespace) = &self.namespace
            && !args.contains(&"--")
        {
            command.args(["-n", namespace]);
        }
        capture(command, &format!("kubectl {}", args.join(" ")), input)
    }

    /// `kubectl apply -f -`, which has to succeed.
    pub(crate) fn apply(&self, manifest: &str) -> Result<Answer> {
        self.run_with_input(&["apply", "-f", "-"], manifest)?.success()
    }

    /// `kubectl get … -o json`, which has to succeed.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["get"];
        all.extend_from_slice(args);
        all.extend_from_slice(&["-o", "json"]);
        self.run(&all)?.success()?.json()
    }
}

/// Runs any command to its end, with a limit, and gives what it printed.
pub(crate) fn capture(mut command: Command, shown: &str, input: &str) -> Result<Answer> {
    let mut child = run::mark(&mut command)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{shown}`"))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let stdin = child.stdin.take();
    let input = input.to_owned();
    let feeder = thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
    let (done, end) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = end.recv_timeout(LIMIT) else {
        if let Some(pid) = pid {
            let _gone = kill_process(pid, Signal::KILL);
        }
        bail!("`{shown}` did not end within {} s", LIMIT.as_secs());
    };
    let output = output?;
    // A command that does not read its input to the end breaks the pipe; that is its right.
    let _fed = feeder.join();
    Ok(Answer {
        command: shown.to_owned(),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
