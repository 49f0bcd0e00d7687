//! What counts against a template: an allow-list. All else is the cluster's doing, and is never charged.

use std::time::Duration;

use super::{
    record::Signal,
    snapshot::{Container, Exit, Pod, Probe, Waiting},
};

/// Whether anything that happens to this pod may be charged at all. A pod that is going away keeps failing its
/// readiness probe; one that was evicted fails for reasons that no template can mend.
pub fn counts(pod: &Pod) -> bool {
    !pod.terminating && !pod.disrupted
}

/// What keeps a container from running, and may be the template's doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// One of those that [`Signal::is_configuration`] holds for.
    pub signal: Signal,
    /// For people.
    pub message: String,
    /// The image that is not there. If the last good template has the same one, the registry has lost it.
    pub image: Option<String>,
}

/// What keeps a container with this image from running, if that is on the list.
pub fn cause(image: &str, waiting: Option<&Waiting>) -> Option<Cause> {
    let Waiting { reason, message } = waiting?;
    let cause = |signal, message| Some(Cause { signal, message, image: None });
    match reason.as_str() {
        "InvalidImageName" => cause(Signal::Image, format!("`{image}` is no image name")),
        "CreateContainerConfigError" => cause(Signal::Configuration, message.clone()),
        "ErrImagePull" | "ImagePullBackOff" if says_not_found(image, message) => Some(Cause {
            signal: Signal::Image,
            message: format!("`{image}` not found"),
            image: Some(image.to_owned()),
        }),
        _ => None,
    }
}

/// The init container that fails, and how: by ending badly, or by what keeps it from running.
pub fn init_cause(pod: &Pod) -> Option<(String, Cause)> {
    let (name, waiting) = pod.init_failure.as_ref()?;
    let message = match waiting.reason.as_str() {
        "Error" | "OOMKilled" | "CrashLoopBackOff" => waiting.message.clone(),
        _ => cause("", Some(waiting))?.message,
    };
    Some((name.clone(), Cause { signal: Signal::Init, message, image: None }))
}

/// The reason is the same for a tag that does not exist, a registry that is down and one that wants a password: only
/// what the runtime says tells them apart. On doubt it is not the template's fault.
fn says_not_found(image: &str, message: &str) -> bool {
    let said = message.replace(image, "").to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
    any(&["not found", "manifest unknown", "name unknown"])
        && !any(&[
            "dial ",
            "lookup ",
            "timeout",
            "refused",
            "denied",
            "unauthorized",
            "forbidden",
            "too many",
            "toomany",
        ])
}

/// What a restart is charged as; `None`: not at all. 255/`Unknown` is what a container shows after its node rebooted.
/// `ran`: for how long it was seen to run before.
pub fn of_restart(container: &Container, started: bool, ran: Option<Duration>, exit: Option<&Exit>) -> Option<Signal> {
    let Some(exit) = exit else { return Some(Signal::Crash) };
    // Ended by a signal from the kubelet, or politely on its request: the status does not say which probe asked for it,
    // but only one of the two can have.
    let killed = matches!(exit.code, 0 | 137 | 143);
    // It has to fail for so long first. When it began to run is seen late, so half of that will do.
    let may_have_failed = |probe: Probe| {
        let least = probe.period.saturating_mul(probe.failure_threshold.saturating_sub(1)) / 2;
        ran.is_none_or(|ran| ran >= least)
    };
    match exit.reason.as_str() {
        "Unknown" if exit.code == 255 => None,
        "OOMKilled" => Some(Signal::OutOfMemory),
        _ if killed && !started && container.startup.is_some_and(may_have_failed) => Some(Signal::Startup),
        _ if killed && started && container.liveness.is_some_and(may_have_failed) => Some(Signal::Liveness),
        _ => Some(Signal::Crash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_charged_by_how_the_container_ended() {
        let probe = Some(Probe { period: Duration::from_secs(1), failure_threshold: 3 });
        let bare =
            Container { name: "model".into(), image: "m:1".into(), readiness: None, liveness: None, startup: None };
        let probed = Container { liveness: probe, startup: probe, ..bare.clone() };
        let exit = |code, reason: &str| Some(Exit { code, reason: reason.into(), at: None });
        for (container, started, exit, wanted) in [
            (&probed, true, exit(137, "Error"), Some(Signal::Liveness)),
            (&probed, true, exit(143, "Error"), Some(Signal::Liveness)),
            (&probed, true, exit(0, "Completed"), Some(Signal::Liveness)),
            (&probed, false, exit(137, "Error"), Some(Signal::Startup)),
            (&probed, true, exit(1, "Error"), Some(Signal::Crash)),
            (&probed, true, exit(137, "OOMKilled"), Some(Signal::OutOfMemory)),
            (&probed, true, exit(255, "Unknown"), None),
            (&probed, true, exit(255, "Error"), Some(Signal::Crash)),
            (&probed, true, None, Some(Signal::Crash)),
            (&bare, true, exit(137, "Error"), Some(Signal::Crash)),
            (&bare, false, exit(0, "Completed"), Some(Signal::Crash)),
        ] {
            assert_eq!(of_restart(container, started, None, exit.as_ref()), wanted, "{exit:?}");
        }
        // Three failures in a row take two periods.
        for (ran, wanted) in [(0, Signal::Crash), (2, Signal::Liveness)] {
            let ran = Some(Duration::from_secs(ran));
            assert_eq!(of_restart(&probed, true, ran, exit(0, "Completed").as_ref()), Some(wanted), "{ran:?}");
        }
    }

    #[test]
    fn only_what_the_template_names_keeps_it_from_running_by_its_own_fault() {
        let image = "registry.example/denied/model:2.4";
        let resolve = |what: &str| {
            format!("failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {what}")
        };
        for (reason, message, wanted) in [
            ("InvalidImageName", "Failed to apply default image tag".to_owned(), Some(Signal::Image)),
            (
                "CreateContainerConfigError",
                "configmap \"thresholds\" not found".to_owned(),
                Some(Signal::Configuration),
            ),
            ("ErrImagePull", resolve(&format!("{image}: not found")), Some(Signal::Image)),
            (
                "ImagePullBackOff",
                format!("Back-off pulling image \"{image}\": ErrImagePull: {}", resolve("manifest unknown")),
                Some(Signal::Image),
            ),
            ("ImagePullBackOff", format!("Back-off pulling image \"{image}\""), None),
            ("ErrImagePull", resolve("dial tcp: lookup registry.example: no such host"), None),
            ("ErrImagePull", resolve("dial tcp 10.0.0.1:443: connect: connection refused"), None),
            ("ErrImagePull", resolve("unexpected status: 401 Unauthorized"), None),
            ("ErrImagePull", resolve("429 Too Many Requests"), None),
            ("ErrImagePull", "pull access denied, repository does not exist: not found".to_owned(), None),
            ("CreateContainerError", "context deadline exceeded".to_owned(), None),
            ("ContainerCreating", String::new(), None),
        ] {
            let waiting = Waiting { reason: reason.into(), message };
            let found = cause(image, Some(&waiting));
            assert_eq!(found.as_ref().map(|cause| cause.signal), wanted, "{waiting:?}");
        }
        assert_eq!(cause(image, None), None);
    }
}
