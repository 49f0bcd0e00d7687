//! One run of the tests or of the demo: its folder, its processes, and its end.
//!
//! Nothing may outlive a run, not even one that was killed. So the run starts a *janitor*: this same program once more,
//! in a process group of its own, holding the read end of a pipe. The pipe closes when the run ends, however it ends,
//! and the janitor then does what the folder's journal says: kills whatever carries the run's mark in its environment,
//! removes bridges and control groups, deletes the folder. A janitor that was killed too leaves a folder that nobody
//! has locked; the next run sweeps it.
//!
//! The mark (an environment variable with the folder's name) is what makes killing safe: a process id may have been
//! given to somebody else by then, a process with our mark is ours.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

const MARK: &str = "SUREFOOT_BED";
const JANITOR: &str = "SUREFOOT_BED_JANITOR";
const PREFIX: &str = "surefoot-bed-";
const JOURNAL: &str = "journal";
const LOCK: &str = "lock";

/// To be called first in `main`: when this process is a janitor it never returns.
pub(crate) fn janitor_if_asked() {
    let Some(folder) = env::var_os(JANITOR) else { return };
    let folder = PathBuf::from(folder);
    // The lock tells other runs that somebody looks after this folder; it goes with this process.
    let lock = lock(&folder);
    let mut rest = Vec::new();
    let _closed = std::io::stdin().read_to_end(&mut rest);
    clean(&folder);
    drop(lock);
    process::exit(0);
}

/// The file gets its name when it is locked: a lock that is seen and free is one whose janitor is gone.
fn lock(folder: &Path) -> Result<File> {
    let unnamed = folder.join("lock.new");
    let file = File::create(&unnamed)?;
    file.lock()?;
    fs::rename(unnamed, folder.join(LOCK))?;
    Ok(file)
}

/// What is left behind by runs whose janitor was killed as well.
fn sweep() {
    let Ok(folders) = fs::read_dir(env::temp_dir()) else { return };
    for folder in folders.flatten().map(|entry| entry.path()) {
        let ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        // A folder without a lock file is one that is just being made.
        if ours && File::open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            clean(&folder);
        }
    }
}

/// The run of this process; started at first use.
struct Run {
    folder: PathBuf,
    janitor: Mutex<Option<Child>>,
}

static RUN: OnceLock<Result<Run, String>> = OnceLock::new();

fn current() -> Result<&'static Run> {
    RUN.get_or_init(|| Run::start().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error}"))
}

impl Run {
    fn start() -> Result<Self> {
        sweep();
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir().context("making the run's folder")?.keep();
        File::create(folder.join(JOURNAL))?;
        let janitor = Command::new(env::current_exe()?)
            .env(JANITOR, &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the janitor")?;
        Ok(Self { folder, janitor: Mutex::new(Some(janitor)) })
    }
}

/// Ends the run: everything that it started is gone when this returns. To be called last in `main`.
pub(crate) fn end() {
    let Some(Ok(run)) = RUN.get() else { return };
    let janitor = run.janitor.lock().map(|mut janitor| janitor.take());
    if let Ok(Some(mut janitor)) = janitor {
        drop(janitor.stdin.take());
        let _status = janitor.wait();
    }
}

/// The folder of this run.
pub(crate) fn folder() -> Result<&'static Path> {
    Ok(&current()?.folder)
}

/// A new folder below the run's.
pub(crate) fn subfolder(name: &str) -> Result<PathBuf> {
    let made = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(folder()?)?;
    Ok(made.keep())
}

/// Notes something outside the folder that has to go at the end, *before* it is made.
pub(crate) fn note(leftover: &Leftover) -> Result<()> {
    let mut journal = OpenOptions::new().append(true).open(folder()?.join(JOURNAL))?;
    writeln!(journal, "{leftover}").context("writing the run's journal")
}

/// What a run leaves outside its folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// A network bridge.
    Bridge(String),
    /// The control groups of containers: each entry of the folder is the id of one.
    Containers(PathBuf),
    /// The rules of this kube-proxy.
    Services(PathBuf),
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bridge(name) => write!(f, "bridge {name}"),
            Self::Containers(ids) => write!(f, "containers {}", ids.display()),
            Self::Services(proxy) => write!(f, "services {}", proxy.display()),
        }
    }
}

/// Kills, removes, deletes. Every step goes on when another fails: there is nobody left to tell.
fn clean(folder: &Path) {
    kill_marked(folder);
    for line in fs::read_to_string(folder.join(JOURNAL)).unwrap_or_default().lines() {
        match line.split_once(' ') {
            Some(("bridge", name)) => {
                let _status = Command::new("ip").args(["link", "delete", name]).stderr(Stdio::null()).status();
            }
            Some(("containers", ids)) => drop(remove_control_groups(Path::new(ids))),
            Some(("services", proxy)) => {
                let _status = Command::new(proxy).arg("--cleanup").stdout(Stdio::null()).stderr(Stdio::null()).status();
            }
            _ => {}
        }
    }
    // A process that is just dying may still write into the folder.
    let _gone = super::until("an empty folder", Duration::from_secs(5), || {
        Ok(match fs::remove_dir_all(folder) {
            Ok(()) => super::watch::Look::Done(()),
            Err(error) => super::watch::Look::Not(error.to_string()),
        })
    });
}

/// Kills all that carry the folder's mark, until no one is found: a process may start another while we look.
fn kill_marked(folder: &Path) {
    let mark = format!("{MARK}={}", folder.display());
    for _ in 0..200 {
        let marked = processes_with(&mark);
        if marked.is_empty() {
            return;
        }
        for pid in marked {
            let _gone = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn processes_with(mark: &str) -> Vec<Pid> {
    let carries = |entry: &fs::DirEntry| {
        fs::read(entry.path().join("environ"))
            .is_ok_and(|environ| environ.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes()))
    };
    let pid =
        |entry: fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
    fs::read_dir("/proc").into_iter().flatten().flatten().filter(carries).filter_map(pid).collect()
}

/// Ids of the processes that carry the mark of the run in `folder`.
pub(crate) fn processes_of(folder: &Path) -> Vec<i32> {
    let mark = format!("{MARK}={}", folder.display());
    processes_with(&mark).into_iter().map(|pid| pid.as_raw_nonzero().get()).collect()
}

/// Removes the groups of containers that were killed; those of others, in the same place, stay. With cgroup v1 each
/// controller has a hierarchy of its own, with v2 there is one. Whether none is left: one whose last process is just dying is.
pub(crate) fn remove_control_groups(ids: &Path) -> bool {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let all: Vec<PathBuf> = hierarchies.chain([root.to_owned()]).map(|path| path.join("k8s.io")).collect();
    let mut is_left = false;
    for group in all.iter().filter(|group| group.is_dir()) {
        for id in fs::read_dir(ids).into_iter().flatten().flatten() {
            let container = group.join(id.file_name());
            is_left |= fs::remove_dir(&container).is_err() && container.is_dir();
        }
        // Fails when somebody else's containers are in it.
        let _gone = fs::remove_dir(group);
    }
    !is_left
}

/// A child process with its own process group and log file; it ends with its handle, or with the run.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to `NAME.log` in `folder` (appended, so that a restart keeps the past).
    pub(crate) fn start(name: &str, folder: &Path, mut command: Command) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = OpenOptions::new().create(true).append(true).open(&log)?;
        let child = mark(&mut command)?
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of the log, under a heading; for messages of failed tests.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        let tail = all[all.len().saturating_sub(lines)..].join("\n");
        format!("--- {} ({})\n{tail}\n", self.name, self.log.display())
    }

    /// An error with the end of the log when the process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let how = status.signal().map_or(status.to_string(), |signal| format!("signal {signal}"));
            bail!("{} ended ({how})\n{}", self.name, self.tail(20));
        }
        Ok(())
    }

    /// `kill -9`, to see what a crash does.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM and wait, as the kubelet does it; an error when it does not end within `limit`.
    pub(crate) fn stop(&mut self, limit: Duration) -> Result<process::ExitStatus> {
        self.signal(Signal::TERM)?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("{} did not end {} s after SIGTERM\n{}", self.name, limit.as_secs(), self.tail(20));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_none()
            && let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            kill_process_group(group, signal).with_context(|| format!("signalling {}", self.name))?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.kill();
    }
}

/// Gives a command the mark of this run.
pub(crate) fn mark(command: &mut Command) -> Result<&mut Command> {
    Ok(command.env(MARK, folder()?).env_remove(JANITOR))
}

/// A port on the loopback interface that nobody listens on, each only once in this process. Taken from below the
/// range that the kernel uses for outgoing connections, so that it is still free when its owner binds it.
pub(crate) fn free_port() -> Result<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Runs side by side start at different places.
    let offset = u16::try_from(process::id().wrapping_mul(97) % u32::from(COUNT))?;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (offset + step) % COUNT;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}
