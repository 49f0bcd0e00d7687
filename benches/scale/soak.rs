//! Whether memory stays flat while rollouts go on all the time: `make soak`, 30 minutes; fewer:
//! `cargo bench --bench scale -- soak 5`. One rollout in ten fails and is reverted.

use std::{ops::Range, time::Instant};

use anyhow::{Context, Result};

use super::{Bed, LIMIT, crashed, met, name, numbers, resident};
use crate::support::{ControlPlane, Look, until};

const MINUTES: usize = 30;
const DEPLOYMENTS: usize = 200;
/// Those that roll out together.
const TOGETHER: usize = 20;
/// Of those, the ones that fail.
const FAILING: usize = 2;
/// What the two are allowed to grow by from the third quarter to the last one: noise. In the first half histories and remembered answers fill.
const GROWTH: f64 = 1.05;

pub(super) fn soak() -> Result<()> {
    let minutes = numbers().first().copied().unwrap_or(MINUTES);
    let plane = ControlPlane::start()?;
    let mut bed = Bed::of(&plane)?;
    bed.grow_for_soak(DEPLOYMENTS)?;
    println!("{:>7}{:>10}{:>9}{:>14}{:>14}", "minute", "rollouts", "reverts", "controller", "webhook");
    let (begun, mut rollouts, mut rows) = (Instant::now(), 0, Vec::new());
    while rows.len() < minutes {
        let first = rollouts % DEPLOYMENTS;
        // Others each time: too many reverts of one are a reason to leave it alone.
        let failing = first + rollouts / DEPLOYMENTS * FAILING % TOGETHER;
        bed.round(first..first + TOGETHER, failing..failing + FAILING, &format!("2.{rollouts}.0"))?;
        rollouts += TOGETHER;
        let minute = begun.elapsed().as_secs() as usize / 60;
        if minute > rows.len() {
            let webhook = resident(bed.surefoot.webhook().context("no webhook")?)?;
            let row = (resident(bed.controller)?, webhook);
            let reverts = bed.sum("surefoot_controller_reverts")?;
            println!("{minute:>7}{rollouts:>10}{reverts:>9}{:>11.1} MB{:>11.1} MB", row.0, row.1);
            rows.push(row);
        }
    }
    let mean = |rows: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
    let quarter = (rows.len() / 4).max(1);
    let (third, last) = (rows.get(2 * quarter..3 * quarter).unwrap_or(&rows), &rows[rows.len() - quarter..]);
    for (what, of) in [("controller", (|row| row.0) as fn(&(f64, f64)) -> f64), ("webhook", |row| row.1)] {
        let (third, last) = (mean(third, of), mean(last, of));
        let flat = met(last <= third * GROWTH);
        println!("{what}: {third:.1} MB in the third quarter, {last:.1} MB in the last one (flat: {flat})");
    }
    bed.surefoot.stop_controller()
}

impl Bed<'_> {
    fn grow_for_soak(&mut self, size: usize) -> Result<()> {
        self.fill(size)?;
        self.start()?;
        self.rested()
    }

    /// These roll out together; some of them fail and are reverted.
    fn round(&self, these: Range<usize>, bad: Range<usize>, version: &str) -> Result<()> {
        let reverts = self.sum("surefoot_controller_reverts")?;
        self.roll_out(these, version)?;
        self.available(0, self.made)?;
        let pods = self.pods_of(version)?;
        for number in bad.clone() {
            let pod = pods.get(&name(number)).with_context(|| format!("no pod of {}", name(number)))?;
            let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
            self.plane.patch(&format!("/api/v1/namespaces/many-0/pods/{pod_name}/status"), &crashed(pod))?;
        }
        until("the reverts", LIMIT, || {
            let now = self.sum("surefoot_controller_reverts")? - reverts;
            Ok(if now >= bad.len() { Look::Done(()) } else { Look::Not(format!("{now} of {}", bad.len())) })
        })
    }
}
