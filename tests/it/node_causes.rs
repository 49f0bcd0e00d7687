//! On a real node: what is wrong with the new version, and whether it is its fault.

use std::{
    cell::Cell,
    fs,
    io::{Read, Write},
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    node::{CONTAINER, Ground, POD, Play, Verdict, file, set, soon_late, words},
    support::image::digits,
};

/// The longest first.
pub(crate) const PLAYS: &[(&str, Play)] = &[
    ("a_crash_after_two_minutes_of_the_bake_is_reverted", crash_after_minutes),
    ("a_loader_of_two_minutes_without_startup_probe_settles", two_minutes),
    ("one_bad_pod_of_many_is_left", one_of_many),
    ("a_slow_loader_within_its_startup_probe_settles", slow_loader),
    ("a_readiness_that_flaps_within_the_budget_settles", flaps_within),
    ("a_volume_of_a_missing_configmap_is_told", missing_volume),
    ("a_registry_that_does_not_answer_is_told", registry_away),
    ("a_readiness_that_flaps_too_much_is_reverted", flaps),
    ("a_crash_is_reverted", || bad("crash", &file("2", "crash", &[]), &Verdict::of(&["crash"]))),
    ("never_ready_with_a_startup_probe_is_reverted", || bad("never", &broken(), &Verdict::of(&["startup"]))),
    ("never_ready_without_a_startup_probe_is_reverted", never_without),
    ("a_hang_is_reverted", || bad("hang", &file("2", "hung", &[]), &Verdict::of(&["liveness", "readiness"]))),
    ("one_that_answers_no_more_is_reverted", stopped),
    ("out_of_memory_is_reverted", || bad("memory", &file("2", "4.0.0", &[]), &Verdict::of(&["outOfMemory"]))),
    ("a_variable_of_a_missing_configmap_is_reverted", missing_variable),
    ("an_image_that_is_not_there_is_reverted", image_not_there),
    ("an_image_whose_name_is_none_is_reverted", no_image_name),
    ("a_failing_init_container_is_reverted", init),
    ("the_bad_one_of_two_containers_is_reverted", one_of_two),
    ("a_bad_sidecar_is_reverted", sidecar),
    ("a_bad_version_under_recreate_is_reverted", recreate),
    ("a_bad_version_without_surge_is_reverted", no_surge),
];

fn broken() -> Value {
    file("2", "broken", &[])
}

/// Version 1 has settled, this one follows and is reverted.
fn bad(name: &str, file: &Value, verdict: &Verdict) -> Result<String> {
    let mut ground = Ground::settled(name)?;
    ground.apply(file)?;
    ground.reverted(verdict)
}

/// Version 1 has settled, this one follows and settles.
fn good(name: &str, file: &Value) -> Result<String> {
    let mut ground = Ground::settled(name)?;
    ground.apply(file)?;
    let told = ground.settles("2")?;
    ground.left_alone()?;
    Ok(told)
}

fn crash_after_minutes() -> Result<String> {
    let mut ground = Ground::settled("minutes")?;
    ground.bakes_long()?;
    let mut file = file("2", "good", &["--crash-after=120s"]);
    // By the default of 10 percent a crash every two minutes would take three of them.
    set(&mut file, "/metadata", "annotations", json!({"surefoot.dev/budget": "percent=3"}));
    ground.apply(&file)?;
    ground.complete("2")?;
    let told = ground.reverted(&Verdict::of(&["crash"]))?;
    ensure!(ground.begun.elapsed() > Duration::from_secs(120), "too early: {told}");
    Ok(told)
}

fn two_minutes() -> Result<String> {
    let mut file = file("2", "good", &["--loading=120s"]);
    set(&mut file, CONTAINER, "startupProbe", Value::Null);
    set(&mut file, "/spec", "progressDeadlineSeconds", json!(300));
    good("two-minutes", &file)
}

fn slow_loader() -> Result<String> {
    let mut file = file("2", "good", &["--loading=45s"]);
    set(&mut file, &format!("{CONTAINER}/startupProbe"), "failureThreshold", json!(60));
    set(&mut file, "/spec", "progressDeadlineSeconds", json!(120));
    good("slow", &file)
}

/// Its processes stand still: probes time out.
fn stopped() -> Result<String> {
    let mut ground = Ground::settled("stopped")?;
    ground.apply(&file("2", "better", &[]))?;
    ground.complete("2")?;
    for pod in ground.pods("2")? {
        signal_container(pod["metadata"]["name"].as_str().context("no name")?, Signal::STOP)?;
    }
    ground.reverted(&Verdict::of(&["liveness", "readiness"]))
}

fn flaps_within() -> Result<String> {
    let mut ground = Ground::settled("flaps-within")?;
    ground.apply(&file("2", "good", &["--fail-after=6s", "--fail-for=1s"]))?;
    let failed = |record: &Value| record["current"]["spent"]["failures"].as_u64().is_some_and(|failures| failures > 0);
    let spent = words(&ground.record_when("a failure", failed)?["current"]["spent"])?;
    let told = ground.settles("2")?;
    ground.left_alone()?;
    Ok(format!("{told}, with {spent}"))
}

fn flaps() -> Result<String> {
    let mut ground = Ground::settled("flaps")?;
    // By the short one a slow machine lets it settle a probe or two before the budget is spent.
    ground.bakes_long()?;
    ground.apply(&file("2", "good", &["--fail-after=4s", "--fail-for=3s"]))?;
    ground.reverted(&Verdict::of(&["readiness"]))
}

fn never_without() -> Result<String> {
    let mut file = soon_late(broken());
    set(&mut file, CONTAINER, "startupProbe", Value::Null);
    bad("never-without", &file, &Verdict::of(&["deadline"]))
}

fn missing_variable() -> Result<String> {
    let mut file = soon_late(file("2", "good", &[]));
    let missing = json!({"configMapKeyRef": {"name": "thresholds", "key": "low"}});
    set(&mut file, CONTAINER, "env", json!([{"name": "LOW", "valueFrom": missing}]));
    bad("variable", &file, &Verdict::configuration(&["configuration"]))
}

/// The kubelet says no more than `ContainerCreating`, as it does of a disk that cannot be attached.
fn missing_volume() -> Result<String> {
    let mut ground = Ground::settled("volume")?;
    let mut file = soon_late(file("2", "good", &[]));
    set(&mut file, POD, "volumes", json!([{"name": "thresholds", "configMap": {"name": "thresholds"}}]));
    set(&mut file, CONTAINER, "volumeMounts", json!([{"name": "thresholds", "mountPath": "/thresholds"}]));
    ground.apply(&file)?;
    ground.hindered("waiting")
}

fn registry_away() -> Result<String> {
    let mut ground = Ground::settled("registry")?;
    let mut file = soon_late(file("2", "good", &[]));
    set(&mut file, CONTAINER, "image", json!("registry.invalid/digits:2"));
    ground.apply(&file)?;
    ground.hindered("waiting")
}

fn image_not_there() -> Result<String> {
    let mut file = soon_late(file("2", "good", &[]));
    set(&mut file, CONTAINER, "image", json!(format!("{}/digits:2", empty_registry()?)));
    bad("image", &file, &Verdict::configuration(&["image"]))
}

/// A registry that answers, and has nothing; gives its address.
fn empty_registry() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let (mut asked, answer) =
                ([0; 4096], "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ended = stream.read(&mut asked).and_then(|_| stream.write_all(answer.as_bytes()));
        }
    });
    Ok(address)
}

fn no_image_name() -> Result<String> {
    let mut file = soon_late(file("2", "good", &[]));
    set(&mut file, CONTAINER, "image", json!("registry.local/Digits:2"));
    bad("image-name", &file, &Verdict::configuration(&["image"]))
}

fn init() -> Result<String> {
    let mut file = soon_late(file("2", "good", &[]));
    set(&mut file, POD, "initContainers", json!([other("fetch", "crash", 8001)]));
    bad("init", &file, &Verdict { container: "fetch", ..Verdict::configuration(&["init"]) })
}

/// Another container of the same pod.
fn other(name: &str, image: &str, port: u16) -> Value {
    json!({"name": name, "image": digits(image), "args": [format!("--listen=:{port}")],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}})
}

fn ready_on(port: u16) -> Value {
    json!({"httpGet": {"path": "/v2/health/ready", "port": port}, "periodSeconds": 1, "failureThreshold": 1})
}

fn one_of_two() -> Result<String> {
    let mut file = file("2", "good", &[]);
    let mut adapter = other("adapter", "late", 8001);
    adapter["args"] = json!(["--listen=:8001", "--fail-after=4s"]);
    adapter["ports"] = json!([{"containerPort": 8001}]);
    adapter["readinessProbe"] = ready_on(8001);
    adapter["startupProbe"] = adapter["readinessProbe"].clone();
    adapter["startupProbe"]["failureThreshold"] = json!(5);
    let live = json!({"httpGet": {"path": "/v2/health/live", "port": 8001}, "periodSeconds": 1, "failureThreshold": 3});
    adapter["livenessProbe"] = live;
    if let Some(containers) = file.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut) {
        containers.push(adapter);
    }
    bad("two", &file, &Verdict { container: "adapter", ..Verdict::of(&["readiness"]) })
}

/// One that starts before the others and stays.
fn sidecar() -> Result<String> {
    let mut file = file("2", "good", &[]);
    let mut proxy = other("proxy", "crash", 8001);
    proxy["restartPolicy"] = json!("Always");
    proxy["args"] = json!(["--listen=:8001", "--crash-after=3s"]);
    set(&mut file, POD, "initContainers", json!([proxy]));
    bad("sidecar", &file, &Verdict { container: "proxy", ..Verdict::of(&["crash"]) })
}

fn with_strategy(mut file: Value, strategy: &Value) -> Value {
    set(&mut file, "/spec", "strategy", strategy.clone());
    file
}

fn under(name: &str, strategy: &Value) -> Result<String> {
    let mut ground = Ground::settled_with(name, &with_strategy(file("1", "good", &[]), strategy))?;
    ground.apply(&with_strategy(file("2", "crash", &[]), strategy))?;
    ground.reverted(&Verdict::of(&["crash"]))
}

fn recreate() -> Result<String> {
    under("recreate", &json!({"type": "Recreate"}))
}

fn no_surge() -> Result<String> {
    under("no-surge", &json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}))
}

/// 16 pods, one of which is killed whenever it is up, for a minute.
fn one_of_many() -> Result<String> {
    let many = |mut file: Value| {
        set(&mut file, "/spec", "replicas", json!(16));
        set(&mut file, &format!("{CONTAINER}/startupProbe"), "failureThreshold", json!(60));
        file
    };
    let mut ground = Ground::settled_with("many", &many(file("1", "good", &[])))?;
    ground.bakes_long()?;
    ground.apply(&many(file("2", "better", &[])))?;
    ground.complete("2")?;
    let pods = ground.pods("2")?;
    let one = pods.first().and_then(|pod| pod["metadata"]["name"].as_str()).context("no pod")?;
    let last = Cell::new(Instant::now());
    ground.stays_for(60, || {
        if last.get().elapsed() > Duration::from_secs(1) {
            signal_container(one, Signal::KILL)?;
            last.set(Instant::now());
        }
        ground.left_alone()
    })?;
    let spent = ground.record_when("what it spends", |record| record["current"]["spent"]["failures"] != Value::Null)?;
    let told = format!("left alone for 60 s: {}", words(&spent["current"]["spent"])?);
    Ok(told)
}

/// A signal to what runs in a pod, if anything does: a container knows its pod as its host.
pub(crate) fn signal_container(pod: &str, signal: Signal) -> Result<()> {
    let host = format!("HOSTNAME={pod}");
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|one| one == host.as_bytes()) {
            // It may have ended by itself.
            let _gone = kill_process(pid, signal);
        }
    }
    Ok(())
}
