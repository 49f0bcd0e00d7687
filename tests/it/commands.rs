//! What people on call type: overrides, reverts by hand, and what `status` shows while it is watched.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    cluster::{refused, surefoot},
    models::{apply, create, digest, good, with, write_record},
    overrides, shared,
    support::{Answer, ControlPlane, Kubectl, Look, kubectl, run, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("commands::an_override_is_set_in_its_form", an_override_is_set_in_its_form),
        trial("commands::an_override_says_why_it_cannot", an_override_says_why_it_cannot),
        trial("commands::a_revert_by_hand_is_like_the_controllers", a_revert_by_hand_is_like_the_controllers),
        trial("commands::a_revert_by_hand_that_is_cut_off_is_finished", a_revert_by_hand_that_is_cut_off_is_finished),
        trial("commands::where_surefoot_only_observes_people_revert", where_surefoot_only_observes_people_revert),
        trial("commands::a_revert_by_hand_says_why_it_cannot", a_revert_by_hand_says_why_it_cannot),
        trial("commands::status_is_watched_line_by_line", status_is_watched_line_by_line),
    ]
}

const ANNOTATION: &str = "surefoot.dev/override";

fn annotation(user: &Kubectl, name: &str) -> Result<Option<String>> {
    let object = user.json(&["deploy", name])?;
    Ok(object["metadata"]["annotations"][ANNOTATION].as_str().map(str::to_owned))
}

fn an_override_is_set_in_its_form() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (_, ana, olga) = overrides::namespace(plane, "override-set")?;
    create(&ana, &good("m"))?.success()?;
    let set = |more: &[&str]| {
        let args = ["override", "deploy/m", "-n", "override-set", "--for", "2h", "--reason", "INC-1234"];
        surefoot(&olga, &[&args[..], more].concat())
    };
    let tried = set(&["--dry-run=server"])?.success()?;
    ensure!(tried.stdout.starts_with("(server dry run) override of override-set/m for 2h, until "), "{tried}");
    ensure!(annotation(&ana, "m")?.is_none(), "a dry run must change nothing");

    let done = set(&[])?.success()?;
    ensure!(done.stdout.starts_with("override of override-set/m for 2h, until "), "{done}");
    let end = "kubectl annotate deploy m -n override-set surefoot.dev/override-";
    ensure!(done.stdout.contains(end) && done.stderr.is_empty(), "{done}");
    let text = annotation(&ana, "m")?.context("the annotation")?;
    let (until, reason) = text.split_once(' ').context("a time and a reason")?;
    let ahead = until.parse::<jiff::Timestamp>()?.duration_since(jiff::Timestamp::now()).as_secs();
    ensure!(reason == "INC-1234" && (7_000..=7_200).contains(&ahead), "{text}");

    // It counts: what a policy refuses is let through, by anybody. And it ends as it says.
    let latest = ["set", "image", "deploy/m", "model=registry.local/m:latest"];
    let through = ana.run(&latest)?.success()?;
    ensure!(through.stderr.contains("INC-1234"), "{through}");
    let again = set(&[])?.success()?;
    ensure!(again.stdout.contains("instead of  the one until ") && again.stdout.contains("INC-1234"), "{again}");
    let command: Vec<_> = end.split(' ').skip(1).collect();
    ana.run(&command)?.success()?;
    ensure!(annotation(&ana, "m")?.is_none(), "{command:?}");
    Ok(())
}

fn an_override_says_why_it_cannot() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (_, ana, olga) = overrides::namespace(plane, "override-not")?;
    create(&ana, &good("m"))?.success()?;
    let args = |span, reason| ["override", "m", "-n", "override-not", "--for", span, "--reason", reason];
    let right = "no right to override guards.surefoot.dev in namespace override-not: User \"ana\" lacks it; an admin \
                 grants it: kubectl create rolebinding surefoot-override -n override-not \
                 --clusterrole=surefoot-override --user=ana";
    refused(&ana, &args("2h", "INC-1"), right)?;
    refused(&olga, &args("25h", "INC-1"), "an override lasts at most 24 hours")?;
    refused(&olga, &args("0s", "INC-1"), "an override lasts at least a second")?;
    refused(&olga, &args("2h", " "), "the reason is empty")?;
    refused(&olga, &args("2h", "two\nlines"), "the reason holds a line break")?;
    let malformed = surefoot(&olga, &args("tomorrow", "INC-1"))?;
    ensure!(malformed.code == 2 && malformed.stderr.contains("give a duration such as 60s"), "{malformed}");
    let none = ["override", "none", "-n", "override-not", "--for", "2h", "--reason", "x"];
    refused(&olga, &none, "deployments/none not found in namespace override-not")?;
    let unguarded = ["override", "m", "-n", "default", "--for", "2h", "--reason", "x"];
    refused(plane.admin(), &unguarded, "namespace default is not guarded")?;
    ensure!(annotation(&ana, "m")?.is_none(), "nothing of that was set");
    Ok(())
}

/// Version 2.0.0 of `m` over 1.0.0, which has settled; `olga` may revert it.
struct Rollout {
    admin: Kubectl,
    ana: Kubectl,
    olga: Kubectl,
    namespace: &'static str,
    /// As the API server has the template of 1.0.0.
    good: Value,
}

impl Rollout {
    fn begin(plane: &ControlPlane, namespace: &'static str, guard: &str) -> Result<Self> {
        drop(shared::surefoot()?);
        let (admin, ana) = shared::namespace(plane, namespace, guard)?;
        let own = admin.in_namespace("surefoot-system");
        let grant =
            |to: &Kubectl, role: &str| to.run(&["create", "rolebinding", namespace, role, "--user=olga"])?.success();
        grant(&admin, "--clusterrole=surefoot-revert")?;
        grant(&own, "--role=surefoot-revert")?;
        apply(&ana, &good("m"))?.success()?;
        let set = until("the ReplicaSet", LIMIT, || {
            let sets = admin.json(&["rs"])?;
            Ok(sets["items"].get(0).cloned().map_or_else(|| Look::Not("none".to_owned()), Look::Done))
        })?;
        let deployment = admin.json(&["deploy", "m"])?;
        let set = json!({"name": set["metadata"]["name"], "uid": set["metadata"]["uid"]});
        let settled = json!([{"digest": digest(&deployment), "version": "1.0.0", "replicaSet": set,
            "at": "2026-11-22T10:00:00Z"}]);
        let record = json!({"version": 1, "namespace": namespace, "name": "m", "uid": deployment["metadata"]["uid"],
            "settled": settled});
        write_record(&admin, "m", &record.to_string())?;
        apply(&ana, &Self::next()?)?.success()?;
        let good = deployment["spec"]["template"].clone();
        Ok(Self { olga: plane.user("olga"), admin, ana, namespace, good })
    }

    /// The file of version 2.0.0.
    fn next() -> Result<Value> {
        let mut next = with(good("m"), "/spec/template/spec/containers/0/image", json!("registry.local/model:2.0.0"))?;
        for place in ["/metadata/labels", "/spec/template/metadata/labels"] {
            next.pointer_mut(place).context("labels")?["app.kubernetes.io/version"] = json!("2.0.0");
        }
        Ok(next)
    }

    fn revert(&self, more: &[&str]) -> Result<Answer> {
        surefoot(&self.olga, &[&["revert", "m", "-n", self.namespace], more].concat())
    }

    fn record(&self) -> Result<Value> {
        let name = format!("record.{}.m", self.namespace);
        let object = self.admin.in_namespace("surefoot-system").json(&["configmap", &name])?;
        Ok(serde_json::from_str(object["data"]["record.json"].as_str().context("a record")?)?)
    }

    fn is_good(&self) -> Result<bool> {
        Ok(self.admin.json(&["deploy", "m"])?["spec"]["template"] == self.good)
    }
}

const LIMIT: Duration = Duration::from_secs(30);

fn a_revert_by_hand_is_like_the_controllers() -> Result<()> {
    let rollout = Rollout::begin(shared::plane()?, "by-hand", "enforce")?;
    let note = "2.0.0 reverted to 1.0.0 by hand by olga: INC-7";
    let tried = rollout.revert(&["--reason", "INC-7", "--dry-run=server"])?.success()?;
    ensure!(tried.stdout == format!("(server dry run) by-hand/m: {note}\n"), "{tried}");
    ensure!(!rollout.is_good()? && rollout.record()?["reverts"] == Value::Null, "a dry run must change nothing");

    let done = rollout.revert(&["--reason", "INC-7"])?.success()?;
    ensure!(done.stdout.starts_with(&format!("by-hand/m: {note}\n  quarantine  2.0.0 is refused until")), "{done}");
    let after = rollout.admin.json(&["deploy", "m"])?;
    ensure!(rollout.is_good()?, "{after}");
    ensure!(after["metadata"]["labels"]["app.kubernetes.io/version"] == "1.0.0", "{after}");
    let managers = after["metadata"]["managedFields"].to_string();
    ensure!(!managers.contains("\"surefoot\""), "fields of ours are left: {managers}");
    // The next apply of the good file finds the file's own fields, and starts no rollout.
    apply(&rollout.ana, &good("m"))?.success()?;
    ensure!(rollout.is_good()?, "the next apply of the good file changes the template");

    let entry = &rollout.record()?["reverts"][0];
    ensure!(entry["outcome"] == "written" && entry["byHand"]["user"] == "olga", "{entry}");
    let events = rollout.admin.json(&["events.events.k8s.io"])?;
    let told = events["items"].as_array().is_some_and(|all| {
        let ours = |event: &&Value| event["reason"] == "RolloutReverted";
        all.iter().filter(ours).count() == 1 && all.iter().any(|event| event["note"].to_string().contains(note))
    });
    ensure!(told, "{events}");
    let refused = until("the quarantine", LIMIT, || {
        let answer = apply(&rollout.ana, &Rollout::next()?)?;
        Ok(if answer.ok() { Look::Not(answer.to_string()) } else { Look::Done(answer) })
    })?;
    ensure!(refused.stderr.contains("version 2.0.0 was reverted by hand by olga: INC-7"), "{refused}");
    let status = surefoot(&rollout.olga, &["status", "m", "-n", "by-hand"])?;
    ensure!(status.stdout.contains("2.0.0 by hand by olga: INC-7"), "{status}");

    drawn(&rollout)?;

    let again = rollout.revert(&[])?;
    let why = "not reverted: 1.0.0 is itself the last version of by-hand/m that settled";
    ensure!(again.code == 1 && again.stderr.starts_with(why) && again.stdout.is_empty(), "{again}");
    Ok(())
}

/// The picture, with the pods for whoever may read them.
fn drawn(rollout: &Rollout) -> Result<()> {
    let pods = rollout.admin.json(&["pods"])?;
    let pod = pods["items"][0]["metadata"]["name"].as_str().context("a pod")?.to_owned();
    let draw = |user: &Kubectl, file: &str| surefoot(user, &["status", "m", "-n", "by-hand", "--svg", file])?.success();
    let all = draw(&rollout.admin, "-")?;
    ensure!(all.stderr.is_empty() && all.stdout.contains(&pod), "no {pod} in {all}");
    ensure!(all.stdout.contains("by-hand/m: 2.0.0 reverted to 1.0.0"), "{all}");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("m.svg");
    let some = draw(&rollout.olga, &file.display().to_string())?;
    let lacks = "drawn without the pods that are there: no right to list pods in namespace by-hand: User \"olga\"";
    ensure!(some.stderr.starts_with(lacks) && some.stdout.is_empty(), "{some}");
    let text = std::fs::read_to_string(&file)?;
    ensure!(roxmltree::Document::parse(&text).is_ok() && text.contains("no pods are known"), "{text}");
    let nowhere = folder.path().join("no/such/m.svg").display().to_string();
    refused(&rollout.admin, &["status", "m", "-n", "by-hand", "--svg", &nowhere], "cannot write ")
}

/// Once it is recorded, whoever comes next finishes it: here the controller, which is running.
fn a_revert_by_hand_that_is_cut_off_is_finished() -> Result<()> {
    let rollout = Rollout::begin(shared::plane()?, "by-hand-cut", "enforce")?;
    let mut command = Command::new(shared::program());
    command.env("KUBECONFIG", rollout.olga.kubeconfig()).env("SUREFOOT_DIE_AT", "AfterRecordRevert");
    command.args(["revert", "m", "-n", "by-hand-cut", "--reason", "INC-8"]);
    let cut = kubectl::capture(command, "surefoot revert, cut off", "")?;
    ensure!(!cut.ok() && cut.stdout.is_empty(), "{cut}");
    until("the controller to finish it", LIMIT, || {
        let entry = rollout.record()?["reverts"].clone();
        let done = entry[0]["outcome"] == "written" && rollout.is_good()?;
        Ok(if done { Look::Done(()) } else { Look::Not(entry.to_string()) })
    })?;
    let reverts = rollout.record()?["reverts"].clone();
    ensure!(reverts.as_array().is_some_and(|all| all.len() == 1), "{reverts}");
    ensure!(reverts[0]["byHand"] == json!({"user": "olga", "reason": "INC-8"}), "{reverts}");
    Ok(())
}

fn where_surefoot_only_observes_people_revert() -> Result<()> {
    let rollout = Rollout::begin(shared::plane()?, "by-hand-warn", "warn")?;
    let done = rollout.revert(&["--yes"])?.success()?;
    let note = "the guard of by-hand-warn is warn: 2.0.0 is quarantined, but nothing keeps it out";
    ensure!(done.stdout.contains("m: 2.0.0 reverted to 1.0.0 by hand by olga\n"), "{done}");
    ensure!(done.stdout.contains(note) && rollout.is_good()?, "{done}");
    let reverts = rollout.record()?["reverts"].clone();
    let written = reverts.as_array().is_some_and(|all| all.len() == 1 && all[0]["outcome"] == "written");
    ensure!(written, "{reverts}");
    Ok(())
}

fn a_revert_by_hand_says_why_it_cannot() -> Result<()> {
    let plane = shared::plane()?;
    let rollout = Rollout::begin(plane, "by-hand-not", "enforce")?;
    let revert = ["revert", "m", "-n", "by-hand-not"];
    let lacks = "no right to get configmaps in namespace surefoot-system, create configmaps in namespace \
                 surefoot-system, update configmaps in namespace surefoot-system: User \"ana\" lacks it; an admin grants \
                 it: kubectl create rolebinding surefoot-revert -n surefoot-system --role=surefoot-revert --user=ana";
    refused(&rollout.ana, &revert, lacks)?;
    refused(plane.admin(), &["revert", "none", "-n", "by-hand-not"], "deployments/none not found in namespace")?;
    refused(plane.admin(), &["revert", "m", "-n", "default"], "namespace default is not guarded")?;
    refused(&rollout.olga, &[&revert[..], &["--reason", " "]].concat(), "the reason is empty")?;

    let why = |want: &str| -> Result<()> {
        let answer = rollout.revert(&[])?;
        ensure!(answer.code == 1 && answer.stdout.is_empty() && answer.stderr.contains(want), "{want:?}: {answer}");
        Ok(())
    };
    rollout.ana.run(&["rollout", "pause", "deploy/m"])?.success()?;
    why("not reverted: the Deployment is paused; first: kubectl rollout resume deploy/m -n by-hand-not")?;
    rollout.ana.run(&["rollout", "resume", "deploy/m"])?.success()?;

    let record = rollout.record()?;
    let mut lost = record.clone();
    lost["settled"][0]["replicaSet"] = json!({"name": "gone", "uid": "gone"});
    write_record(&rollout.admin, "m", &lost.to_string())?;
    why("not reverted: nothing to go back to: the ReplicaSet of the last good version is gone; by yourself: kubectl")?;
    let mut none = record.clone();
    none["settled"] = json!([]);
    write_record(&rollout.admin, "m", &none.to_string())?;
    why("not reverted: nothing to go back to: no version has settled")?;
    let mut many = record;
    let entry = |second: u32| {
        json!({"digest": format!("v1:{second}"), "at": format!("{}", jiff::Timestamp::now()), "outcome": "written",
            "class": "application", "evidence": {"failures": 12, "attempts": 30, "budget": 10,
                "since": "2026-11-22T14:21:07Z", "until": "2026-11-22T14:21:48Z", "container": "model",
                "signal": "readiness"}})
    };
    many["reverts"] = json!([entry(1), entry(2), entry(3)]);
    write_record(&rollout.admin, "m", &many.to_string())?;
    why("not reverted: three reverts in 24 hours")?;
    ensure!(!rollout.is_good()?, "nothing of that changed anything");
    Ok(())
}

/// A `surefoot status --watch` that is running, and the lines that it prints.
struct Watching {
    child: std::process::Child,
    lines: mpsc::Receiver<String>,
}

impl Watching {
    fn begin(user: &Kubectl, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(shared::program());
        command.env("KUBECONFIG", user.kubeconfig()).args(["status", "--watch"]).args(args);
        let mut child = run::mark(&mut command)?.stdout(Stdio::piped()).spawn()?;
        let out = BufReader::new(child.stdout.take().context("no output")?);
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Ok(Self { child, lines })
    }

    /// The next line, which has to hold all of these.
    fn next(&self, words: &[&str]) -> Result<String> {
        let line = self.lines.recv_timeout(LIMIT).with_context(|| format!("no line with {words:?}"))?;
        let missing: Vec<_> = words.iter().filter(|word| !line.contains(**word)).collect();
        ensure!(missing.is_empty(), "no {missing:?} in {line}");
        Ok(line)
    }

    /// As Ctrl-C ends it.
    fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let code = self.child.wait()?.code();
        ensure!(code == Some(0), "ended with {code:?}");
        let more: Vec<_> = self.lines.iter().collect();
        ensure!(more.is_empty(), "more lines: {more:?}");
        Ok(())
    }
}

fn status_is_watched_line_by_line() -> Result<()> {
    let plane = crate::cluster::plane()?;
    let (admin, ana) = shared::namespace(plane, "watched", "warn")?;
    let paused = |name: &str| with(good(name), "/spec/replicas", json!(0));
    apply(&admin, &paused("m")?)?.success()?;
    let observed = |name: &str| {
        until("its status", LIMIT, || {
            let object = admin.json(&["deploy", name])?;
            let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            Ok(if seen { Look::Done(object) } else { Look::Not(object["status"].to_string()) })
        })
    };
    let object = observed("m")?;
    let text = Watching::begin(plane.admin(), &["-n", "watched"])?;
    let json = Watching::begin(plane.admin(), &["-n", "watched", "-o", "json"])?;
    let all = Watching::begin(plane.admin(), &["-A"])?;
    text.next(&[" UTC  watched/m  1.0.0  progressing  at 0 replicas"])?;
    let line: Value = serde_json::from_str(&json.next(&["progressing"])?)?;
    ensure!(line["namespace"] == "watched" && line["guard"] == "warn" && line["failed"] == Value::Null, "{line}");

    let settled = json!([{"digest": digest(&object), "version": "1.0.0", "at": "2026-11-22T10:00:00Z",
        "replicaSet": {"name": "set", "uid": "set"}}]);
    let record = json!({"version": 1, "namespace": "watched", "name": "m", "uid": object["metadata"]["uid"],
        "settled": settled});
    write_record(&admin, "m", &record.to_string())?;
    text.next(&["watched/m  1.0.0  settled"])?;
    let line: Value = serde_json::from_str(&json.next(&["settled"])?)?;
    ensure!(line["state"] == "settled" && line["since"] == "2026-11-22T10:00:00Z", "{line}");
    // What nobody would read otherwise is no line.
    admin.run(&["annotate", "deploy", "m", "example.com/a=b"])?.success()?;
    admin.run(&["annotate", "deploy", "m", &crate::models::override_for(2, "INC-9")])?.success()?;
    text.next(&["settled  override until ", "INC-9"])?;
    json.next(&["\"override\":{", "INC-9"])?;
    admin.run(&["delete", "deploy", "m"])?.success()?;
    text.next(&["watched/m  deleted"])?;
    json.next(&["\"deleted\":true"])?;
    text.end()?;
    json.end()?;
    // The other namespaces of this control plane come and go.
    while !all.lines.recv_timeout(LIMIT)?.contains("watched/m  deleted") {}
    kill_process(Pid::from_child(&all.child), Signal::INT)?;
    let lacks = "no right to list configmaps in namespace surefoot-system";
    refused(&ana, &["status", "-n", "watched", "--watch"], lacks)
}
