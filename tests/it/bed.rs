//! The test bed itself: what every other trial stands on.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;

use crate::{support::ControlPlane, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("bed::control_planes_stand_side_by_side", control_planes_stand_side_by_side)]
}

fn control_planes_stand_side_by_side() -> Result<()> {
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(ControlPlane::start);
        (ControlPlane::start(), other.join())
    });
    let (one, two) = (one?, two.map_err(|_| anyhow::anyhow!("the second control plane panicked"))??);
    ensure!(one.url() != two.url(), "both listen on {}", one.url());
    one.admin().run(&["create", "namespace", "only-in-one"])?.success()?;
    one.admin().run(&["get", "namespace", "only-in-one"])?.success()?;
    two.admin().run(&["get", "namespace", "only-in-one"])?.failure()?;

    let version = one.admin().run(&["version", "-o", "json"])?.success()?.json()?;
    ensure!(version["serverVersion"]["gitVersion"] == "v1.35.4", "unexpected version: {version}");

    // A plain user has the rights that are given, and no others.
    let ana = one.user("ana").in_namespace("only-in-one");
    ana.run(&["get", "pods"])?.failure()?;
    one.admin()
        .run(&["create", "rolebinding", "ana", "--clusterrole=edit", "--user=ana", "-n", "only-in-one"])?
        .success()?;
    ana.run(&["get", "pods"])?.success()?;
    ana.run(&["get", "nodes"])?.failure()?;
    Ok(())
}
