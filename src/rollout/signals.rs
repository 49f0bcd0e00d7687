//! What counts against a template: an allow-list. All else is the cluster's doing, and is never charged.

use super::{
    record::Signal,
    snapshot::{Container, Exit, Pod},
};

/// Whether anything that happens to this pod may be charged at all. A pod that is going away keeps failing its
/// readiness probe; one that was evicted, or whose node is lost, fails for reasons that no template can mend.
pub fn counts(pod: &Pod) -> bool {
    !pod.terminating && !pod.disrupted && pod.node_ready != Some(false)
}

/// What a restart is charged as; `None`: not at all. 255/`Unknown` is what a container shows after its node rebooted.
pub fn of_restart(container: &Container, started: bool, exit: Option<&Exit>) -> Option<Signal> {
    let Some(exit) = exit else { return Some(Signal::Crash) };
    // Ended by a signal from the kubelet, or politely on its request: the status does not say which probe asked for it,
    // but only one of the two can have.
    let killed = matches!(exit.code, 0 | 137 | 143);
    match exit.reason.as_str() {
        "Unknown" if exit.code == 255 => None,
        "OOMKilled" => Some(Signal::OutOfMemory),
        _ if killed && !started && container.startup.is_some() => Some(Signal::Startup),
        _ if killed && started && container.liveness.is_some() => Some(Signal::Liveness),
        _ => Some(Signal::Crash),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rollout::snapshot::Probe;

    #[test]
    fn a_restart_is_charged_by_how_the_container_ended() {
        let probe = Some(Probe { period: Duration::from_secs(1), failure_threshold: 3 });
        let bare = Container { name: "model".into(), readiness: None, liveness: None, startup: None };
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
            assert_eq!(of_restart(container, started, exit.as_ref()), wanted, "{exit:?}");
        }
    }
}
