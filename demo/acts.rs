//! The acts, in the order in which they are played.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    stage::{NAMESPACE, Stage, versions},
    traffic::{Traffic, one_prediction},
    watch::{until_reverted, version_of},
};

/// An act, and whether it needs containers that run.
pub(crate) struct Act {
    pub(crate) title: &'static str,
    pub(crate) needs_node: bool,
    pub(crate) play: fn(&mut Stage) -> Result<()>,
}

const fn act(title: &'static str, play: fn(&mut Stage) -> Result<()>) -> Act {
    Act { title, needs_node: false, play }
}

const fn act_on_node(title: &'static str, play: fn(&mut Stage) -> Result<()>) -> Act {
    Act { title, needs_node: true, play }
}

pub(crate) const ALL: [Act; 10] = [
    act("what is real", what_is_real),
    act("an unsafe file", an_unsafe_file),
    act("version 1", version_1),
    act("a canary", a_canary),
    act_on_node("version 2: its weights are cut short, which no policy can see", version_2),
    act_on_node("version 2 once more", again),
    act_on_node("version 3: the fix", fix),
    act_on_node("version 4: wants more memory than it may have", hungry),
    act("the webhook is away", outage),
    act("what was measured", table),
];

fn what_is_real(stage: &mut Stage) -> Result<()> {
    println!("{}", versions(&stage.plane)?);
    println!("Running here: the webhook, the controller, and whatever you see in the pods. Nothing is simulated.");
    println!("Shortened for you: a version settles after 3 s without a failing probe (10 min as shipped).\n");
    stage.types("kubectl get namespace shop elsewhere -L surefoot.dev/guard")?.passes("enforce").map(drop)
}

fn an_unsafe_file(stage: &mut Stage) -> Result<()> {
    stage.types(&format!("kubectl apply -n {NAMESPACE} -f demo/shop/unsafe.yaml"))?.refused("3 problems")?;
    let json =
        stage.runs("kubectl create -n shop --dry-run=client -o json -f demo/shop/unsafe.yaml")?.passes("{")?.text;
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let time = stage.time_to_answer(&json, &path)?;
    stage.figure("refused by the API server in", format!("{:.1} ms", time.as_secs_f64() * 1000.0));
    Ok(())
}

fn version_1(stage: &mut Stage) -> Result<()> {
    stage.types(&format!("kubectl apply -n {NAMESPACE} -f demo/shop/digits.yaml"))?.passes("Warning: ")?;
    if !stage.has_node() {
        return Ok(());
    }
    settles(stage)?;
    stage.traffic = Some(Traffic::start(&stage.plane)?);
    predicts(stage, "1.0.0")
}

fn a_canary(stage: &mut Stage) -> Result<()> {
    let apply = format!("kubectl apply -n {NAMESPACE} -f");
    stage.types(&format!("{apply} demo/shop/canary.yaml"))?.refused("canary-cap")?;
    stage.types(&format!("sed 's/replicas: 3/replicas: 1/' demo/shop/canary.yaml | {apply} -"))?.passes("created")?;
    stage.types(&format!("kubectl scale -n {NAMESPACE} deploy/digits-canary --replicas=5"))?.refused("canary-cap")?;
    stage.types(&format!("kubectl delete -n {NAMESPACE} deploy/digits-canary"))?.passes("deleted").map(drop)
}

fn version_2(stage: &mut Stage) -> Result<()> {
    let before = stage.traffic.as_ref().map(Traffic::count).unwrap_or_default();
    stage.types(&apply("2.0.0"))?.passes("configured")?;
    let seen = until_reverted(stage, "2.0.0", "1.0.0", Duration::from_secs(60))?;
    let count = stage.traffic.as_ref().map(Traffic::count).unwrap_or_default().since(before);
    let (served, failed) = (count.served, count.failed);
    println!(
        "reverted {} after the first failure; {failed} of {} requests failed\n",
        seen.to_revert(),
        served + failed
    );
    let events = format!("kubectl events -n {NAMESPACE} --for deploy/digits --types=Warning");
    stage.types(&events)?.passes("RolloutReverted")?;
    stage.types(&format!("surefoot status digits -n {NAMESPACE}"))?.passes("reverted")?;

    stage.figure("first failure to revert", seen.to_revert());
    stage.figure("revert to good pods only", seen.to_good_pods_only());
    stage.figure("requests during the bad rollout", format!("{served} served, {failed} failed"));
    ensure!(failed == 0, "{failed} requests failed: version 2 should never have been asked");
    ensure!(count.right == served, "{} of {served} answers were wrong", served - count.right);
    Ok(())
}

fn again(stage: &mut Stage) -> Result<()> {
    stage.types(&apply("2.0.0"))?.refused("quarantine")?;
    ensure!(version_of(stage)? == "1.0.0", "the refused version is there");
    Ok(())
}

fn fix(stage: &mut Stage) -> Result<()> {
    stage.types(&apply("3.0.0"))?.passes("configured")?;
    settles(stage)?;
    predicts(stage, "3.0.0")
}

fn hungry(stage: &mut Stage) -> Result<()> {
    stage.types(&apply("4.0.0"))?.passes("configured")?;
    let seen = until_reverted(stage, "4.0.0", "3.0.0", Duration::from_secs(90))?;
    println!("reverted {} after the first failure\n", seen.to_revert());
    let wait = format!("surefoot wait deploy/digits -n {NAMESPACE} --for settled --timeout 60s");
    stage.types(&format!("{wait}; echo \"exit code $?\""))?.passes("exit code 1")?;
    stage.figure("out of memory: first failure to revert", seen.to_revert());
    Ok(())
}

fn outage(stage: &mut Stage) -> Result<()> {
    println!("# the webhook is stopped");
    stage.surefoot.stop_webhook()?;
    let restart = format!("kubectl rollout restart -n {NAMESPACE} deploy/digits");
    stage.types(&restart)?.refused("failed calling webhook")?;
    stage.types(&format!("kubectl scale -n {NAMESPACE} deploy/digits --replicas=3"))?.passes("scaled")?;
    stage.types(&format!("kubectl annotate -n {NAMESPACE} deploy/digits note=still-works"))?.passes("annotated")?;
    let elsewhere = "kubectl create deployment -n elsewhere hello --image=registry.local/digits:3.0.0 --replicas=0";
    stage.types(elsewhere)?.passes("created")?;
    println!("# and started again");
    stage.surefoot.start_webhook()?;
    stage.types(&restart)?.passes("restarted").map(drop)
}

fn table(stage: &mut Stage) -> Result<()> {
    if let Some(all) = stage.traffic.take().map(|traffic| traffic.count()) {
        stage.figure("requests in all", format!("{} served, {} failed, {} right", all.served, all.failed, all.right));
    }
    let width = stage.figures.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
    for (what, value) in &stage.figures {
        println!("  {what:width$}  {value}");
    }
    Ok(())
}

/// What one types to bring out another version: one file, one number.
fn apply(version: &str) -> String {
    format!("sed s/1.0.0/{version}/ demo/shop/digits.yaml | kubectl apply -n {NAMESPACE} -f -")
}

fn settles(stage: &mut Stage) -> Result<()> {
    let start = Instant::now();
    let wait = format!("surefoot wait deploy/digits -n {NAMESPACE} --for settled --timeout 60s");
    stage.types(&wait)?.passes("settled")?;
    println!("# {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn predicts(stage: &Stage, version: &str) -> Result<()> {
    let (picture, said, by) = one_prediction(&stage.plane, 7)?;
    println!("{picture}    digits {by} says {said}");
    ensure!(said == 7 && by == version, "expected 7, by version {version}");
    Ok(())
}
