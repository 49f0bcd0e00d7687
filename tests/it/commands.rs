//! What people on call type: overrides, reverts by hand, and what `status` shows while it is watched.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;

use crate::{
    cluster::{refused, surefoot},
    models::{create, good},
    overrides, shared,
    support::Kubectl,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("commands::an_override_is_set_in_its_form", an_override_is_set_in_its_form),
        trial("commands::an_override_says_why_it_cannot", an_override_says_why_it_cannot),
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
