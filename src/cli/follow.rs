//! Files that may change while a long-running command reads them: policies, configuration, certificates.
//!
//! They are looked at twice a second, by what the system says of them (which file, its size, its times), not by a
//! notification: those have limits that a busy node reaches, do not exist on every file system, and tell of an edit in
//! many pieces. A look sees them all alike: a file written in place, one that an editor renames over it, and the `..data`
//! link of a mounted ConfigMap or Secret that is swapped. What was seen to change is read once it stays as it is.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};

use super::load;

/// Between two looks. The kubelet itself brings a changed ConfigMap to a node within a minute or so.
const LOOK: Duration = Duration::from_millis(500);

/// Files, and a folder of policies, as they were last seen.
pub(super) struct Follow {
    files: Vec<PathBuf>,
    folder: Option<PathBuf>,
    seen: Vec<Seen>,
}

/// What identifies the contents of one file without reading it; the error's kind where there is none.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    about: Result<About, std::io::ErrorKind>,
}

/// Device, inode, size, and the times of the last write and of the last change, in seconds and nanoseconds. The file is
/// the one that a link leads to.
type About = [i128; 7];

impl Follow {
    /// As they are now: to be made *before* they are read for the first time, so that no change is missed.
    pub(super) fn new(files: impl IntoIterator<Item = PathBuf>, folder: Option<PathBuf>) -> Self {
        let files = files.into_iter().collect::<Vec<_>>();
        let seen = look(&files, folder.as_deref());
        Self { files, folder, seen }
    }

    /// Resolves when they are not what they were the last time, and stay like that for two looks.
    pub(super) async fn changed(&mut self) {
        if self.files.is_empty() && self.folder.is_none() {
            return std::future::pending().await;
        }
        let mut before = None;
        loop {
            sleep(LOOK).await;
            let (files, folder) = (self.files.clone(), self.folder.clone());
            // A network file system may take its time.
            let Ok(now) = spawn_blocking(move || look(&files, folder.as_deref())).await else { continue };
            if now != self.seen && before.as_ref() == Some(&now) {
                self.seen = now;
                return;
            }
            before = Some(now);
        }
    }
}

fn look(files: &[PathBuf], folder: Option<&Path>) -> Vec<Seen> {
    let mut seen: Vec<Seen> = files.iter().map(|file| see(file.clone())).collect();
    match folder.map(load::files) {
        None => {}
        Some(Ok(policies)) => seen.extend(policies.into_iter().map(see)),
        Some(Err(_)) => seen.extend(folder.map(|folder| see(folder.to_owned()))),
    }
    seen
}

fn see(path: PathBuf) -> Seen {
    let about = std::fs::metadata(&path).map_err(|error| error.kind()).map(|about| {
        let times = [about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()].map(i128::from);
        let [write, write_part, change, change_part] = times;
        [about.dev().into(), about.ino().into(), about.size().into(), write, write_part, change, change_part]
    });
    Seen { path, about }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn every_way_in_which_a_file_changes_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for generation in ["..1", "..2"] {
            fs::create_dir_all(path(generation)).unwrap();
            fs::write(path(generation).join("policy.rego"), "package surefoot.p").unwrap();
        }
        symlink("..1", path("..data")).unwrap();
        symlink("..data/policy.rego", path("policy.rego")).unwrap();
        fs::write(path("config.yaml"), "a").unwrap();
        let mut before = look(&[path("config.yaml")], Some(dir.path()));
        let mut changes = |what: &str, change: &dyn Fn()| {
            assert_eq!(look(&[path("config.yaml")], Some(dir.path())), before, "{what}: nothing has changed yet");
            change();
            let after = look(&[path("config.yaml")], Some(dir.path()));
            assert_ne!(after, before, "{what}");
            before = after;
        };
        changes("a mounted ConfigMap", &|| {
            symlink("..2", path("..new")).unwrap();
            fs::rename(path("..new"), path("..data")).unwrap();
        });
        changes("written in place", &|| fs::write(path("config.yaml"), "b").unwrap());
        changes("renamed over it", &|| {
            fs::write(path("config.new"), "b").unwrap();
            fs::rename(path("config.new"), path("config.yaml")).unwrap();
        });
        changes("gone", &|| fs::remove_file(path("config.yaml")).unwrap());
        changes("a new policy", &|| fs::write(path("q.rego"), "").unwrap());
        changes("a policy is gone", &|| fs::remove_file(path("q.rego")).unwrap());
        changes("the folder is gone", &|| fs::rename(dir.path(), dir.path().with_extension("x")).unwrap());
        fs::rename(dir.path().with_extension("x"), dir.path()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_written_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        fs::write(&file, "").unwrap();
        let mut follow = Follow::new([file.clone()], None);
        let begun = tokio::time::Instant::now();
        let writing = async {
            for written in 1..=10 {
                fs::write(&file, "x".repeat(written)).unwrap();
                sleep(LOOK / 2).await;
            }
        };
        let ((), ()) = tokio::join!(follow.changed(), writing);
        assert!(begun.elapsed() >= 5 * LOOK, "read after {:?}", begun.elapsed());
        let quiet = tokio::time::timeout(10 * LOOK, follow.changed()).await;
        assert!(quiet.is_err(), "nothing has changed since");
    }
}
