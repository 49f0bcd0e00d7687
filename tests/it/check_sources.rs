//! What `surefoot check` reads: several files, recorded reviews, and everything that is no manifest.

use std::{fs, os::unix::fs as unix, path::Path};

use anyhow::{Context as _, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    check::{SAFE, surefoot},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> =
        BAD.iter().map(|case| trial(&format!("check_sources::bad_input::{}", case.name), || case.holds())).collect();
    trials.extend([
        trial("check_sources::anchors_by_the_thousand", anchors_by_the_thousand),
        trial("check_sources::a_dump_of_a_large_cluster", a_dump_of_a_large_cluster),
        trial("check_sources::a_name_in_two_files_is_two_environments", a_name_in_two_files_is_two_environments),
        trial("check_sources::the_nearest_peer_counts", the_nearest_peer_counts),
        trial("check_sources::recorded_reviews", recorded_reviews),
        trial("check_sources::reviews_that_are_none", reviews_that_are_none),
        trial("check_sources::what_names_no_namespace", what_names_no_namespace),
        trial("check_sources::links_pipes_and_folders", links_pipes_and_folders),
        trial("check_sources::huge_files", huge_files),
        trial("check_sources::what_may_not_be_read", what_may_not_be_read),
    ]);
    trials
}

/// A text that is no manifest: what is told of it, with its place, and that the good one beside it is judged all the same.
struct Bad {
    name: &'static str,
    text: &'static [u8],
    place: &'static str,
    words: &'static str,
}

const BAD: [Bad; 9] = [
    Bad {
        name: "duplicate_keys",
        text: b"kind: Deployment\nspec:\n  replicas: 1\n  replicas: 2\n",
        place: "4:3",
        words: "remove one of them",
    },
    Bad {
        name: "duplicate_keys_in_json",
        text: b"{\"kind\": \"A\",\n \"kind\": \"B\"}",
        place: "2:2",
        words: "remove one of them",
    },
    Bad { name: "tabs", text: b"kind: Deployment\nspec:\n\treplicas: 1\n", place: "3:2", words: "indent with spaces" },
    Bad { name: "no_mapping", text: b"- kind: Deployment\n", place: "1:1", words: "it has no apiVersion and kind" },
    Bad { name: "a_scalar", text: b"---\njust words\n", place: "2:1", words: "it has no apiVersion and kind" },
    Bad {
        name: "no_utf8",
        text: b"kind: Deployment\nmetadata: {name: \"ch\xfcrn\"}\n",
        place: "2:21",
        words: "save it as UTF-8",
    },
    Bad { name: "utf16", text: b"\xff\xfek\0i\0n\0d\0", place: "1:1", words: "this is UTF-16" },
    Bad { name: "an_alias_to_itself", text: b"kind: A\na: &a [*a]\n", place: "2:8", words: "write out what is meant" },
    Bad { name: "cut_off", text: b"{\"kind\": \"Deployment\", \"spec\": {", place: "1:32", words: "" },
];

impl Bad {
    fn holds(&self) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        write(folder.path(), "bad.yaml", self.text)?;
        write(folder.path(), "good.yaml", SAFE)?;
        let run = surefoot(folder.path(), &["check", "bad.yaml", "good.yaml"], "")?;
        let place = format!("bad.yaml:{}", self.place);
        ensure!(run.stderr.contains(&place) && run.stderr.contains(self.words), "want {place}\n{}", run.stderr);
        ensure!(run.code == Some(2), "exit code {:?}", run.code);
        ensure!(run.stdout.contains("1 Deployment would be admitted"), "{}", run.stdout);
        let json = surefoot(folder.path(), &["check", "bad.yaml", "-o", "json"], "")?.json()?;
        let failure = &json["failures"][0];
        ensure!(format!("{}:{}", failure["line"], failure["column"]) == self.place, "{failure}");
        Ok(())
    }
}

/// Thousands of anchors are how people write, aliases that expand without end are not.
fn anchors_by_the_thousand() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let many: String =
        (0..5000).map(|number| format!("  a{number}: &a{number} x\n  b{number}: *a{number}\n")).collect();
    let run = surefoot(folder.path(), &["check", "-"], &format!("kind: Service\nlabels:\n{many}"))?;
    ensure!(run.code == Some(0), "{}", run.stderr);
    let mut bomb = "kind: Deployment\na: &l0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*l{}", level - 1); 10].join(",");
        bomb += &format!("b{level}: &l{level} [{aliases}]\n");
    }
    let started = std::time::Instant::now();
    let run = surefoot(folder.path(), &["check", "-"], &bomb)?;
    ensure!(run.code == Some(2) && run.stderr.contains("write out what is needed"), "{}", run.stderr);
    ensure!(started.elapsed() < std::time::Duration::from_secs(120), "{:?}", started.elapsed());
    Ok(())
}

/// `kubectl get deploy -A -o yaml` of some hundred Deployments is no bomb.
fn a_dump_of_a_large_cluster() -> anyhow::Result<()> {
    const COUNT: usize = 400;
    let folder = tempfile::tempdir()?;
    let object: Value = serde_saphyr::from_str(SAFE)?;
    let padding: Vec<Value> = (0..220).map(|number| json!({"name": format!("V{number}"), "value": "x"})).collect();
    let items = (0..COUNT).map(|number| {
        let mut object = object.clone();
        object["metadata"]["name"] = format!("churn-{number}").into();
        object["metadata"]["labels"]["surefoot.dev/model"] = format!("m{number}").into();
        object["spec"]["template"]["spec"]["containers"][0]["env"] = padding.clone().into();
        object
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>()});
    write(folder.path(), "dump.yaml", list.to_string())?;
    write(
        folder.path(),
        "mine/size/policy.rego",
        "# METADATA\n# title: S\n# custom:\n#   action: Deny\npackage surefoot.size\n\ndeny contains \"large\" if input.request.object.spec.replicas > 50\n",
    )?;
    let run = surefoot(folder.path(), &["check", "dump.yaml", "--policies", "mine"], "")?;
    ensure!(
        run.code == Some(0) && run.stdout == format!("{COUNT} Deployments would be admitted\n"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    Ok(())
}

const READINESS: &str = "        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}\n";

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().context("a folder")?)?;
    Ok(fs::write(path, text)?)
}

/// `file namespace/name verdict` of each object.
fn verdicts(report: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let objects = report["objects"].as_array().into_iter().flatten();
    let line = |it: &Value| {
        format!("{} {}/{} {}", text(&it["file"]), text(&it["namespace"]), text(&it["name"]), text(&it["verdict"]))
    };
    objects.map(line).collect()
}

/// The first of two is refused, and the second changes nothing of what is wrong: were it an update, it would pass.
fn a_name_in_two_files_is_two_environments() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let bad = SAFE.replace(READINESS, "");
    write(folder.path(), "prod/churn.yaml", &bad)?;
    write(folder.path(), "staging/churn.yaml", bad.replace("replicas: 20", "replicas: 2"))?;
    let run = surefoot(folder.path(), &["check", ".", "-o", "json"], "")?;
    let expected = ["./prod/churn.yaml shop/churn denied", "./staging/churn.yaml shop/churn denied"];
    ensure!(verdicts(&run.json()?) == expected, "{}", run.stdout);
    let one_file = format!("{bad}---\n{}", bad.replace("replicas: 20", "replicas: 2"));
    let run = surefoot(folder.path(), &["check", "-", "-o", "json"], &one_file)?;
    let expected = ["<stdin> shop/churn denied", "<stdin> shop/churn allowed"];
    ensure!(verdicts(&run.json()?) == expected, "{}", run.stdout);
    Ok(())
}

/// Two canary replicas are fine beside twenty stable ones of the same environment, and too many beside three.
fn the_nearest_peer_counts() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let canary = SAFE
        .replace("name: churn\n", "name: churn-canary\n")
        .replace("2.4.0", "2.5.0")
        .replace("replicas: 20", "replicas: 2")
        .replace("model: churn\n", "model: churn\n    surefoot.dev/track: canary\n");
    write(folder.path(), "prod/canary.yaml", &canary)?;
    write(folder.path(), "prod/churn.yaml", SAFE)?;
    write(folder.path(), "staging/canary.yaml", &canary)?;
    write(folder.path(), "staging/churn.yaml", SAFE.replace("replicas: 20", "replicas: 3"))?;
    let report = surefoot(folder.path(), &["check", ".", "-o", "json"], "")?.json()?;
    let expected = [
        "./prod/canary.yaml shop/churn-canary allowed",
        "./prod/churn.yaml shop/churn allowed",
        "./staging/canary.yaml shop/churn-canary denied",
        "./staging/churn.yaml shop/churn allowed",
    ];
    ensure!(verdicts(&report) == expected, "{report:#}");
    Ok(())
}

/// What the API server would have sent.
fn review(operation: &str, object: &Value, old: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "9b5a", "operation": operation, "name": "churn", "namespace": "shop",
        "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "userInfo": {"username": "ana"}, "object": object, "oldObject": old}})
}

fn recorded_reviews() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let value = |text: &str| -> anyhow::Result<Value> { Ok(serde_saphyr::from_str(text)?) };
    let (safe, bad) = (value(SAFE)?, value(&SAFE.replace(READINESS, ""))?);
    let mut scaled = bad.clone();
    scaled["spec"]["replicas"] = 21.into();
    let rows = [
        ("a good one", review("CREATE", &safe, &Value::Null), "allowed", 0),
        ("a bad one", review("CREATE", &bad, &Value::Null), "denied", 1),
        ("what was there before", review("UPDATE", &scaled, &bad), "allowed", 0),
        ("what is taken away", review("UPDATE", &bad, &safe), "denied", 1),
    ];
    for (what, review, verdict, code) in &rows {
        let run = surefoot(folder.path(), &["check", "-", "-o", "json"], &format!("{review:#}"))?;
        ensure!(verdicts(&run.json()?) == [format!("<stdin> shop/churn {verdict}")], "{what}: {}", run.stdout);
        ensure!(run.code == Some(*code), "{what}: {:?}\n{}", run.code, run.stderr);
    }
    // Many in one file, as a stream of JSON, as YAML documents and as a List; the places are those of the recording.
    let stream: Vec<String> = rows.iter().map(|(_, review, ..)| review.to_string()).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": rows.each_ref().map(|(_, review, ..)| review)});
    for text in [stream.join("\n---\n"), list.to_string(), format!("{list:#}")] {
        let run = surefoot(folder.path(), &["check", "-", "-o", "json"], &text)?;
        let report = run.json()?;
        let expected = rows.each_ref().map(|(_, _, verdict, _)| format!("<stdin> shop/churn {verdict}"));
        ensure!(verdicts(&report) == expected, "{report:#}");
        let at = &report["objects"][1]["findings"][0]["line"];
        let line = text.lines().nth(at.as_u64().context("a line")? as usize - 1).unwrap_or_default();
        ensure!(text.lines().count() < 50 || line.trim() == "{", "{at}: {line}");
    }
    // Neither deletions nor other kinds are judged; a scale is, where its Deployment is known.
    let gone = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "1",
        "operation": "DELETE", "kind": {"kind": "Deployment"}, "name": "churn", "namespace": "shop", "oldObject": safe}});
    let run = surefoot(folder.path(), &["check", "-"], &gone.to_string())?;
    ensure!(run.code == Some(0) && run.stdout == "no Deployment found\n", "{}{}", run.stdout, run.stderr);
    // By hand: the API server would not have asked about it, so no policy is, and none breaks.
    let mut odd = safe.clone();
    odd["spec"]["strategy"] = json!([1]);
    let run =
        surefoot(folder.path(), &["check", "-", "-o", "json"], &review("CREATE", &odd, &Value::Null).to_string())?;
    let report = run.json()?;
    let finding = &report["objects"][0]["findings"][0];
    ensure!(finding["policy"] == "kubernetes" && finding["code"] == "invalid", "{report}");
    ensure!(run.code == Some(1) && report["failures"] == json!([]), "{:?}\n{}{}", run.code, run.stdout, run.stderr);
    Ok(())
}

fn reviews_that_are_none() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let scale = "apiVersion: admission.k8s.io/v1\nkind: AdmissionReview\nrequest:\n  uid: x\n  operation: UPDATE\n  \
                 kind: {kind: Scale}\n  name: churn\n  namespace: shop\n  object: {kind: Scale, spec: {replicas: 9}}\n  \
                 oldObject: {kind: Scale}\n";
    let rows = [
        (
            "apiVersion: admission.k8s.io/v1beta1\nkind: AdmissionReview\n",
            "AdmissionReview of admission.k8s.io/v1 only",
        ),
        ("apiVersion: admission.k8s.io/v1\nkind: AdmissionReview\n", "has no `request`"),
        (
            "apiVersion: admission.k8s.io/v1\nkind: AdmissionReview\nrequest: {uid: x, operation: LOOK}\n",
            "unknown operation",
        ),
        (scale, "scales Deployment shop/churn; give its manifest too"),
    ];
    for (text, words) in rows {
        let run = surefoot(folder.path(), &["check", "-"], text)?;
        ensure!(run.code == Some(2) && run.stderr.contains(words), "{words}: {:?}\n{}", run.code, run.stderr);
        ensure!(run.stderr.contains("<stdin>:1:1"), "{}", run.stderr);
    }
    let run = surefoot(folder.path(), &["check", "-", "-o", "json"], &format!("{SAFE}---\n{scale}"))?;
    ensure!(run.code == Some(0) && run.json()?["objects"].as_array().map(Vec::len) == Some(2), "{}", run.stdout);
    Ok(())
}

fn what_names_no_namespace() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let text = SAFE.replace("  namespace: shop\n", "");
    for (arguments, namespace) in
        [(&["check", "-", "-o", "json"][..], "default"), (&["check", "-", "-o", "json", "-n", "risk"], "risk")]
    {
        let report = surefoot(folder.path(), arguments, &text)?.json()?;
        ensure!(report["objects"][0]["namespace"] == namespace, "{report}");
    }
    Ok(())
}

/// None of them ends in a loop, and none hides what is beside it.
fn links_pipes_and_folders() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    write(folder.path(), "k8s/churn.yaml", SAFE)?;
    unix::symlink(folder.path().join("k8s"), folder.path().join("k8s/again"))?;
    unix::symlink("../k8s", folder.path().join("k8s/again.yaml"))?;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path().join("k8s/pipe.yaml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )?;
    fs::create_dir(folder.path().join("k8s/folder.yaml"))?;
    let run = surefoot(folder.path(), &["check", "k8s", "-o", "json"], "")?;
    ensure!(run.code == Some(0) && verdicts(&run.json()?) == ["k8s/churn.yaml shop/churn allowed"], "{}", run.stdout);
    unix::symlink("loop.yaml", folder.path().join("k8s/loop.yaml"))?;
    let run = surefoot(folder.path(), &["check", "k8s"], "")?;
    ensure!(run.code == Some(2) && run.stderr.contains("k8s/loop.yaml: cannot be read"), "{}", run.stderr);
    ensure!(run.stdout.contains("1 Deployment would be admitted"), "{}", run.stdout);
    Ok(())
}

fn huge_files() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    write(folder.path(), "a.yaml", SAFE)?;
    fs::File::create(folder.path().join("huge.yaml"))?.set_len(1 << 40)?;
    let run = surefoot(folder.path(), &["check", "."], "")?;
    ensure!(run.code == Some(2) && run.stderr.contains("./huge.yaml: larger than 64 MiB"), "{}", run.stderr);
    ensure!(run.stdout.contains("1 Deployment would be admitted"), "{}", run.stdout);
    Ok(())
}

fn what_may_not_be_read() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir()?;
    write(folder.path(), "closed.yaml", SAFE)?;
    write(folder.path(), "open.yaml", SAFE)?;
    write(folder.path(), "shut/a.yaml", SAFE.replace("name: churn\n", "name: a\n"))?;
    fs::set_permissions(folder.path().join("closed.yaml"), fs::Permissions::from_mode(0o000))?;
    fs::set_permissions(folder.path().join("shut"), fs::Permissions::from_mode(0o000))?;
    let run = surefoot(folder.path(), &["check", "."], "")?;
    fs::set_permissions(folder.path().join("shut"), fs::Permissions::from_mode(0o700))?;
    if fs::read(folder.path().join("closed.yaml")).is_ok() {
        // root reads everything.
        ensure!(run.code == Some(0), "{}", run.stderr);
        return Ok(());
    }
    for words in ["closed.yaml: may not be read: permission denied; chmod u+r", "shut: may not be read", "chmod u+rx"] {
        ensure!(run.code == Some(2) && run.stderr.contains(words), "`{words}` is not in {}", run.stderr);
    }
    Ok(())
}
