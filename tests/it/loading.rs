//! Policies, configuration and certificate of the real program while it runs: what changes on disk counts without a
//! restart, what is wrong never does, and a hostile policy costs only itself.
//!
//! The cluster behind it is a few lines here that answer the lists of its watches.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::Trial;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

use crate::{
    bad_input,
    shared::program,
    support::{
        http::{Answer, Https},
        run::{self, Process},
        watch::{Look, until},
    },
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("loading::a_folder_that_changes_counts_as_a_whole_or_not_at_all", a_folder_that_changes),
        trial("loading::bad_input_leaves_what_was_there_in_force", bad_input_leaves_what_was_there_in_force),
        trial("loading::what_could_never_be_asked_is_refused_at_start", what_could_never_be_asked),
        trial("loading::a_hostile_policy_costs_only_itself", a_hostile_policy_costs_only_itself),
        trial("loading::a_mounted_config_map_is_followed", a_mounted_config_map_is_followed),
        trial("loading::a_certificate_is_replaced_and_connections_go_on", a_certificate_is_replaced),
    ]
}

const LIMIT: Duration = Duration::from_secs(30);

/// A policy that refuses what has this name.
fn refuses(name: &str) -> String {
    format!(
        "# METADATA\n# title: No {name}\npackage surefoot.names\n\ndeny contains finding if {{\n\t\
         print(\"a policy looked at\", input.request.name)\n\tinput.request.object.metadata.name == params.name\n\t\
         finding := {{\"code\": \"{name}\", \"msg\": \"it is refused\", \"path\": \"/metadata/name\"}}\n}}\n\n\
         params := object.union({{\"name\": \"{name}\"}}, input.parameters)\n"
    )
}

/// `surefoot webhook` with a folder of policies, a configuration and a certificate of its own.
struct Webhook {
    process: Process,
    listen: SocketAddr,
    folder: PathBuf,
}

impl Webhook {
    /// `folder` holds `policies/`, `config.yaml` and what `surefoot certs` makes by now.
    fn start(folder: &Path) -> Result<Self> {
        let listen = SocketAddr::from(([127, 0, 0, 1], run::free_port()?));
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, stand_in()?)?;
        let mut command = Command::new(program());
        command.args(["webhook", "--listen", &listen.to_string()]).arg("--kubeconfig").arg(kubeconfig);
        command.arg("--tls-cert").arg(folder.join("tls.crt")).arg("--tls-key").arg(folder.join("tls.key"));
        command.arg("--policies").arg(folder.join("policies")).arg("--config").arg(folder.join("config.yaml"));
        let process = Process::start("webhook", folder, command)?;
        let mut this = Self { process, listen, folder: folder.to_owned() };
        until("the webhook to be ready", LIMIT, || {
            this.process.check()?;
            Ok(match this.get("/readyz") {
                Ok(answer) if answer.status == 200 => Look::Done(()),
                seen => Look::Not(format!("{seen:?}")),
            })
        })
        .map_err(|error| anyhow!("{error:#}\n{}", this.process.tail(20)))?;
        Ok(this)
    }

    fn client(&self) -> Result<Https> {
        Https::new(&self.folder.join("ca.crt"), None)
    }

    fn get(&self, path: &str) -> Result<Answer> {
        self.client()?.get(self.listen, path)
    }

    /// Waits until `/readyz?verbose` holds `text`.
    fn says(&self, text: &str) -> Result<String> {
        until(text, LIMIT, || {
            let answer = self.get("/readyz?verbose")?;
            Ok(if answer.body.contains(text) { Look::Done(answer.body) } else { Look::Not(answer.body) })
        })
        .map_err(|error| anyhow!("{error:#}\n{}", self.process.tail(20)))
    }

    /// The digest of the set in force.
    fn digest(&self) -> Result<String> {
        let told = self.get("/readyz?verbose")?.body;
        let digest = told.lines().find_map(|line| line.strip_prefix("policies ")?.split(" in set ").nth(1));
        digest.map(str::to_owned).with_context(|| told.clone())
    }

    /// The codes for which a Deployment of this name is refused.
    fn refused(&self, name: &str) -> Result<String> {
        Ok(self.review(name, "3s")?["status"]["details"]["causes"][0]["reason"].as_str().unwrap_or_default().to_owned())
    }

    fn review(&self, name: &str, timeout: &str) -> Result<Value> {
        self.asked("/validate", name, timeout)
    }

    fn asked(&self, hook: &str, name: &str, timeout: &str) -> Result<Value> {
        let answer = self.client()?.send(self.listen, &format!("{hook}?timeout={timeout}"), Some(&review(name)))?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(serde_json::from_str::<Value>(&answer.body)?["response"].take())
    }

    fn metrics_hold(&self, line: &str) -> Result<()> {
        let metrics = self.get("/metrics")?.body;
        ensure!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
        Ok(())
    }
}

fn review(name: &str) -> String {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "operation": "CREATE", "name": name, "namespace": "shop",
        "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "userInfo": {"username": "ana"}, "oldObject": null, "object": {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"selector": {"matchLabels": {"app": "m"}}, "template": {"metadata": {"labels": {"app": "m"}},
                "spec": {"containers": [{"name": "model", "image": "r/m:1"}]}}}}}})
    .to_string()
}

/// A folder with certificates, an empty configuration and these policies.
fn folder(name: &str, policies: &[(&str, &str)]) -> Result<PathBuf> {
    let folder = run::subfolder(name)?;
    certs_into(&folder)?;
    fs::write(folder.join("config.yaml"), CONFIG)?;
    for (path, text) in policies {
        write(&folder.join("policies").join(path), text)?;
    }
    Ok(folder)
}

const CONFIG: &str = "apiVersion: surefoot.dev/v1\nkind: Config\n";

fn write(file: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(file.parent().context("no folder")?)?;
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

fn certs_into(folder: &Path) -> Result<()> {
    let status = Command::new(program()).arg("certs").arg(folder).stdout(std::process::Stdio::null()).status()?;
    ensure!(status.success(), "surefoot certs: {status}");
    Ok(())
}

/// The kubeconfig of an API server that lists one guarded namespace with nothing in it; its watches stay silent.
fn stand_in() -> Result<String> {
    static ADDRESS: OnceLock<Result<SocketAddr, String>> = OnceLock::new();
    let start = || -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(&stream));
            }
        });
        Ok(address)
    };
    let address = ADDRESS.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    let address = address.as_ref().map_err(|error| anyhow!("{error}"))?;
    Ok(format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    ))
}

fn serve(stream: &TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    loop {
        let asked = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        let path = asked.split([' ', '?']).nth(1)?;
        let labels = json!({"surefoot.dev/guard": "enforce"});
        let shop = json!({"metadata": {"name": "shop", "resourceVersion": "1", "labels": labels}});
        let items = if path.ends_with("/namespaces") { vec![shop.clone()] } else { Vec::new() };
        let mut body = json!({"metadata": {"resourceVersion": "1"}, "items": items}).to_string();
        if path.ends_with("/namespaces/shop") {
            body = shop.to_string();
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        let mut out = stream;
        if asked.contains("watch=") {
            // It says nothing more, and ends with its reader.
            write!(out, "{head}Transfer-Encoding: chunked\r\n\r\n").ok()?;
            lines.next()?.ok()?;
        }
        write!(out, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).ok()?;
    }
}

fn a_folder_that_changes() -> Result<()> {
    let folder = folder("loading", &[("names/policy.rego", &refuses("one"))])?;
    let policy = folder.join("policies/names/policy.rego");
    let webhook = Webhook::start(&folder)?;
    let first = webhook.digest()?;
    ensure!(webhook.refused("one")? == "names/one" && webhook.refused("two")?.is_empty(), "the first set");
    webhook.metrics_hold(&format!("surefoot_policy_set_info{{digest=\"{first}\",version=\"{}\"}} 1", version()))?;

    // Another policy counts, and its set is another one, everywhere where it is told.
    write(&policy, &refuses("two"))?;
    let second = until("another set", LIMIT, || {
        let digest = webhook.digest()?;
        Ok(if digest == first { Look::Not(digest) } else { Look::Done(digest) })
    })?;
    ensure!(webhook.refused("one")?.is_empty() && webhook.refused("two")? == "names/two", "the second set");
    ensure!(webhook.review("two", "3s")?["auditAnnotations"]["policy-set"] == second.as_str(), "the audit log");
    webhook.metrics_hold(&format!("surefoot_policy_set_info{{digest=\"{second}\",version=\"{}\"}} 1", version()))?;

    // What is wrong never counts, whatever is wrong with it, and everybody can see what and where.
    let test = "package surefoot.names_test\n\ntest_wrong if 1 == 2\n";
    let recursive = format!("{}\na if b\nb if a\n", refuses("x"));
    let config = folder.join("config.yaml");
    let rows = [
        (&policy, "package surefoot.names\n\ndeny contains x if {\n", "policy.rego:"),
        (&policy, recursive.as_str(), "policy.rego:13:1: this rule needs itself"),
        (
            &folder.join("policies/names/policy_test.rego"),
            test,
            "policy_test.rego:3:1: test data.surefoot.names_test.test_wrong failed",
        ),
        (
            &folder.join("policies/other/policy.rego"),
            &refuses("x"),
            "policy.rego:3:1: package `surefoot.names` is already in",
        ),
        (
            &config,
            "apiVersion: surefoot.dev/v1\nkind: Config\npolicies: {nams: {}}\n",
            "config.yaml:3:12: there is no policy `nams`; did you mean `names`?",
        ),
        (&config, "apiVersion: surefoot.dev/v1\nkind: Config\npolicies:\n\tnames: {}\n", "config.yaml:4:2: "),
        (&config, "- 1\n", "config.yaml:1:1: "),
    ];
    for (file, text, says) in rows {
        let before = fs::read_to_string(file).ok();
        write(file, text)?;
        let told = webhook.says(says)?;
        ensure!(
            told.ends_with("ok\n") && webhook.digest()? == second && webhook.refused("two")? == "names/two",
            "{told}"
        );
        webhook.metrics_hold("surefoot_reload_refused{part=\"policies\"} 1")?;
        ensure!(webhook.process.log().contains("policies are not reloaded"), "{}", webhook.process.tail(9));
        match before {
            Some(before) => write(file, &before)?,
            None => fs::remove_file(file)?,
        }
        until("the good set to be seen", LIMIT, || {
            let told = webhook.get("/readyz?verbose")?.body;
            Ok(if told.contains("refused") { Look::Not(told) } else { Look::Done(()) })
        })?;
        webhook.metrics_hold("surefoot_reload_refused{part=\"policies\"} 0")?;
    }
    ensure!(webhook.digest()? == second, "the set is the same as before");

    // A folder that is gone for a while is a folder that is wrong.
    fs::rename(folder.join("policies"), folder.join("away"))?;
    webhook.says("cannot read the policy folder")?;
    ensure!(webhook.refused("two")? == "names/two", "the set of a folder that is gone");
    fs::rename(folder.join("away"), folder.join("policies"))?;

    // The configuration is followed as the policies are.
    write(&config, &format!("{CONFIG}policies: {{names: {{parameters: {{name: three}}}}}}\n"))?;
    until("the configuration to count", LIMIT, || {
        let refused = webhook.refused("three")?;
        Ok(if refused == "names/two" { Look::Done(()) } else { Look::Not(refused) })
    })?;
    ensure!(!webhook.process.log().contains("a policy looked at"), "what a policy prints is in the log of a server");
    Ok(())
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// As the kubelet does it: a new folder with everything, then the link `..data` renamed over the old one.
fn publish(mount: &Path, generation: &str, files: &[(&str, &[u8])]) -> Result<()> {
    let real = mount.join(generation);
    fs::create_dir_all(&real)?;
    for (name, text) in files {
        fs::write(real.join(name), text)?;
        if fs::symlink_metadata(mount.join(name)).is_err() {
            symlink(Path::new("..data").join(name), mount.join(name))?;
        }
    }
    symlink(generation, mount.join("..data_tmp"))?;
    Ok(fs::rename(mount.join("..data_tmp"), mount.join("..data"))?)
}

fn a_mounted_config_map_is_followed() -> Result<()> {
    let folder = folder("mounted", &[])?;
    let mount = folder.join("policies");
    publish(&mount, "..2026_1", &[("names.rego", refuses("one").as_bytes())])?;
    let webhook = Webhook::start(&folder)?;
    ensure!(webhook.refused("one")? == "names/one", "the first generation");
    publish(&mount, "..2026_2", &[("names.rego", refuses("two").as_bytes())])?;
    fs::remove_dir_all(mount.join("..2026_1"))?;
    until("the second generation", LIMIT, || {
        let refused = webhook.refused("two")?;
        Ok(if refused == "names/two" { Look::Done(()) } else { Look::Not(refused) })
    })?;
    ensure!(webhook.refused("one")?.is_empty(), "the first generation counts no more");
    Ok(())
}

/// The certificate that a new connection is shown.
fn shown(listen: SocketAddr, ca: &Path) -> Result<(TlsStream, CertificateDer<'static>)> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let session = rustls::ClientConnection::new(config.into(), listen.ip().into())?;
    let stream = TcpStream::connect(listen)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut stream = TlsStream::new(session, stream);
    alive(&mut stream)?;
    let leaf = stream.conn.peer_certificates().and_then(|chain| chain.first()).context("no certificate")?;
    let leaf = leaf.clone().into_owned();
    Ok((stream, leaf))
}

type TlsStream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// One request on a connection that stays open.
fn alive(stream: &mut TlsStream) -> Result<()> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("the connection was dropped")?;
        answer.extend(byte);
    }
    Ok(())
}

fn a_certificate_is_replaced() -> Result<()> {
    let folder = folder("certificate", &[("names/policy.rego", &refuses("one"))])?;
    // A mounted Secret, and clients that trust the CAs of both its generations.
    let pair = |folder: &Path| -> Result<(Vec<u8>, Vec<u8>)> {
        Ok((fs::read(folder.join("tls.crt"))?, fs::read(folder.join("tls.key"))?))
    };
    let (old, old_key) = pair(&folder)?;
    let other = run::subfolder("certificate-2")?;
    certs_into(&other)?;
    let (new, new_key) = pair(&other)?;
    let both = folder.join("ca.crt");
    fs::write(&both, [fs::read(&both)?, fs::read(other.join("ca.crt"))?].concat())?;
    fs::remove_file(folder.join("tls.crt"))?;
    fs::remove_file(folder.join("tls.key"))?;
    publish(&folder, "..1", &[("tls.crt", &old), ("tls.key", &old_key)])?;
    let webhook = Webhook::start(&folder)?;
    let told = webhook.says("certificate  until ")?;
    ensure!(told.contains(" days left"), "{told}");
    let (mut open, first) = shown(webhook.listen, &both)?;

    // Half of a pair is no pair.
    publish(&folder, "..2", &[("tls.crt", &new), ("tls.key", &old_key)])?;
    let told = webhook.says("tls.key is not the key of")?;
    ensure!(told.contains("refused      certificate") && told.ends_with("ok\n"), "{told}");
    webhook.metrics_hold("surefoot_reload_refused{part=\"certificate\"} 1")?;
    ensure!(shown(webhook.listen, &both)?.1 == first, "the old pair is still shown");

    publish(&folder, "..3", &[("tls.crt", &new), ("tls.key", &new_key)])?;
    until("the new certificate", LIMIT, || {
        let (_, certificate) = shown(webhook.listen, &both)?;
        Ok(if certificate == first { Look::Not("the old one".to_owned()) } else { Look::Done(()) })
    })?;
    alive(&mut open)?;
    Ok(())
}

/// Whatever becomes of the files: the set before is asked, and the place is told in `/readyz?verbose` and in the log.
fn bad_input_leaves_what_was_there_in_force() -> Result<()> {
    let folder = folder("bad-input", &[("names/policy.rego", bad_input::GOOD)])?;
    let webhook = Webhook::start(&folder)?;
    let digest = webhook.digest()?;
    ensure!(webhook.refused("one")? == "names/name", "the first set");
    let still = |what: &str, says: &str| {
        webhook.says(says).with_context(|| what.to_owned())?;
        ensure!(webhook.digest()? == digest && webhook.refused("one")? == "names/name", "{what}: another set counts");
        ensure!(webhook.process.log().contains(says), "{what}: not in the log\n{}", webhook.process.tail(9));
        webhook.metrics_hold("surefoot_reload_refused{part=\"policies\"} 1")
    };
    let well_again = || {
        until("the good files to be seen", LIMIT, || {
            let told = webhook.get("/readyz?verbose")?.body;
            Ok(if told.contains("refused") { Look::Not(told) } else { Look::Done(()) })
        })
    };

    let config = folder.join("config.yaml");
    for (text, says) in bad_input::configurations() {
        fs::write(&config, &text)?;
        still(&String::from_utf8_lossy(&text), says)?;
        fs::write(&config, CONFIG)?;
        well_again()?;
    }

    let other = folder.join("policies/other/policy.rego");
    let rows: [(&[u8], &str); 3] = [
        (b"package surefoot.other\n\xff\n", "policy.rego:2:1: a byte that is no UTF-8; save the file as UTF-8"),
        (b"package surefoot.names\n", "policy.rego:1:1: package `surefoot.names` is already in "),
        (b"package surefoot.other\n\nx if {\n", "policy.rego:4:1: "),
    ];
    for (text, says) in rows {
        fs::create_dir_all(other.parent().context("no folder")?)?;
        fs::write(&other, text)?;
        still(&String::from_utf8_lossy(text), says)?;
        fs::remove_dir_all(other.parent().context("no folder")?)?;
        well_again()?;
    }

    // Unreadable for root, too.
    let link = folder.join("policies/link.rego");
    symlink("nowhere", &link)?;
    still("a dangling link", "link.rego: cannot read this policy: No such file")?;
    fs::remove_file(&link)?;
    well_again()?;
    let (policies, away) = (folder.join("policies"), folder.join("away"));
    fs::rename(&policies, &away)?;
    still("no folder", "cannot read the policy folder ")?;
    fs::create_dir(&policies)?;
    still("an empty folder", "no policies in ")?;
    fs::remove_dir(&policies)?;
    fs::write(&policies, "x")?;
    still("a file in its place", " is a file: give the folder that the policies lie in")?;
    fs::remove_file(&policies)?;
    fs::rename(&away, &policies)?;
    well_again()
}

/// Exit code 2, with the place, in no time.
fn what_could_never_be_asked() -> Result<()> {
    let folder = folder("refused", &[])?;
    let endless = "count([1 | some x in many; some y in many; x + y == 0])";
    let deny = "deny contains \"x\" if input.request.name == \"x\"\n";
    let rows: Vec<(String, &str)> = vec![
        (format!("a if b\nb if a\n{deny}"), "hostile/policy.rego:3:1: this rule needs itself"),
        (
            format!("f(n) := f(n - 1) if n > 0\nr := f(300000)\n{deny}"),
            "hostile/policy.rego:3:1: this rule needs itself",
        ),
        (format!("a := {}1{}\n{deny}", "[".repeat(300), "]".repeat(300)), "hostile/policy.rego:3:18: brackets nested"),
        (format!("a := {}1{}\n{deny}", "{1:".repeat(300), "}".repeat(300)), "hostile/policy.rego:3:"),
        (format!("a := {}\n{deny}", "[".repeat(300_000)), "hostile/policy.rego:3:18: brackets nested"),
        (
            format!("a := http.send({{\"url\": \"http://x\"}})\n{deny}"),
            "hostile/policy.rego:3:6: there is no function `http.send`",
        ),
        (format!("a := time.now_ns()\n{deny}"), "hostile/policy.rego:3:6: there is no function `time.now_ns`"),
        (format!("a := opa.runtime()\n{deny}"), "hostile/policy.rego:3:6: there is no function `opa.runtime`"),
        (format!("a := rand.intn(\"x\", 5)\n{deny}"), "hostile/policy.rego:3:6: `rand.intn` is refused"),
        (
            format!("params := {{\"a\": {endless}}}\nmany := {MANY}\n{deny}"),
            "hostile/policy.rego:3:1: `params` on an empty input did not end within",
        ),
        (
            format!("params := {{\"a\": numbers.range(1, 30000000)}}\n{deny}"),
            "hostile/policy.rego:3:30: this makes too much",
        ),
        (format!("a := \"{}\"\n{deny}", "x".repeat(2000)), "hostile/policy.rego:3:7: line exceeds"),
    ];
    let refused = |says: &str, what: &str, limit: Duration| -> Result<()> {
        let mut command = Command::new(program());
        command.arg("webhook").arg("--policies").arg(folder.join("policies"));
        command.arg("--tls-cert").arg(folder.join("tls.crt")).arg("--tls-key").arg(folder.join("tls.key"));
        let begun = Instant::now();
        let output = run::mark(&mut command)?.output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2) && told.contains(says), "{what}: {} {told}", output.status);
        ensure!(begun.elapsed() < limit, "{what}: {:?}", begun.elapsed());
        Ok(())
    };
    for (body, says) in rows {
        write(&folder.join("policies/hostile/policy.rego"), &format!("package surefoot.hostile\n\n{body}"))?;
        let shown: String = body.chars().take(80).collect();
        refused(says, &shown, Duration::from_secs(20))?;
    }
    // A test that nothing stops: given up.
    write(&folder.join("policies/hostile/policy.rego"), &format!("package surefoot.hostile\n\n{deny}"))?;
    let (d, e) = (doubled("d", "[1]", "[@, @]"), doubled("e", "[1]", "[@, @]"));
    let test = format!("package surefoot.hostile_test\n\n{d}{e}test_stuck if d33 == e33\n");
    write(&folder.join("policies/hostile/policy_test.rego"), &test)?;
    let says = "test data.surefoot.hostile_test.test_stuck does not end";
    refused(says, "a test that nothing stops", Duration::from_secs(40))
}

/// `d0 := [1]`, `d1 := [d0, d0]`, …: small in memory, endless for whoever looks at all of it.
fn doubled(name: &str, first: &str, next: &str) -> String {
    let step = |i: usize| format!("{name}{i} := {}\n", next.replace('@', &format!("{name}{}", i - 1)));
    format!("{name}0 := {first}\n{}", (1..=33).map(step).collect::<String>())
}

/// To be made once: where each round of a loop makes it, that is too much before it is too long.
const MANY: &str = "numbers.range(1, 100000)";

fn a_hostile_policy_costs_only_itself() -> Result<()> {
    let hostile: [(&str, String, &str); 12] = [
        ("endless", "some x in many\n\tsome y in many\n\tx + y == 0".to_owned(), "did not end within"),
        ("range", "count(numbers.range(1, 30000000)) == 7".to_owned(), "this makes too much"),
        ("strings", "count(s33) == 7".to_owned(), "this makes too much"),
        ("output", "count(json.marshal(d33)) == 7".to_owned(), "an argument is too much"),
        ("memory", "count([[x, y] | some x in many; some y in many]) == 7".to_owned(), "did not end within"),
        ("panics", "sprintf(\"%\u{b2}d\", [1]) == \"\"".to_owned(), "the Rego engine panicked"),
        ("bomb", "regex.match(\"(((a{1,99}){1,99}){1,99}){1,99}\", \"aaaa\")".to_owned(), "size limit"),
        ("argument", "startswith(d33, \"a\")".to_owned(), "an argument is too much"),
        ("element", "sum([d33]) == 7".to_owned(), "an argument is too much"),
        ("merged", "count(object.union({\"a\": d33}, {\"a\": d33})) == 7".to_owned(), "an argument is too much"),
        ("shape", "true".to_owned(), "what it gives is too much"),
        // Nothing stops it: it is given up.
        ("stuck", "d33 == e33".to_owned(), "cannot be stopped"),
    ];
    let mut policies: Vec<(String, String)> = hostile
        .iter()
        .map(|(name, body, _)| {
            // What one of them gives is no text.
            let given = if *name == "shape" { "d33" } else { "\"x\"" };
            let text = format!(
                "package surefoot.{name}\n\ndeny contains {given} if {{\n\tinput.request.name == \"{name}\"\n\t{body}\n}}\n\nmany := {MANY}\n\n{}{}{}",
                doubled("s", "\"aa\"", "replace(@, \"a\", \"aa\")"),
                doubled("d", "[1]", "[@, @]"),
                doubled("e", "[1]", "[@, @]"),
            );
            (format!("{name}/policy.rego"), text)
        })
        .collect();
    policies.push(("names/policy.rego".to_owned(), refuses("bad")));
    let adds = "defaults contains {\"path\": \"/spec/paused\", \"value\": d33} if input.request.name == \"adds\"\n\n";
    let adds = format!("package surefoot.adds\n\n{adds}{}", doubled("d", "[1]", "[@, @]"));
    policies.push(("adds/policy.rego".to_owned(), adds));
    let policies: Vec<_> = policies.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let webhook = Webhook::start(&folder("hostile", &policies)?)?;
    for (name, _, says) in hostile {
        thread::scope(|scope| {
            let hurt: Vec<_> = (0..3).map(|_| scope.spawn(|| webhook.review(name, "3s"))).collect();
            for _ in 0..3 {
                let begun = Instant::now();
                ensure!(
                    webhook.refused("bad")? == "names/bad" && webhook.refused("good")?.is_empty(),
                    "others, beside {name}"
                );
                ensure!(begun.elapsed() < Duration::from_secs(6), "two others beside {name}: {:?}", begun.elapsed());
            }
            for hurt in hurt {
                let response = hurt.join().map_err(|_| anyhow!("panicked"))??;
                let message = response["status"]["message"].as_str().unwrap_or_default();
                let named =
                    message.contains(&format!("{name}/broken")) && message.contains(&format!("{name}/policy.rego"));
                ensure!(named && message.contains(says) && message.contains("not your fault"), "{name}: {response}");
            }
            Ok(())
        })?;
    }
    let added = webhook.asked("/mutate", "adds", "3s")?;
    ensure!(added["patch"].is_null() && added["auditAnnotations"]["broken"] == "adds", "{added}");
    let metrics = webhook.get("/metrics")?.body;
    ensure!(metrics.contains("surefoot_policy_overruns{policy=\"stuck\"} "), "{metrics}");
    let status = fs::read_to_string(format!("/proc/{}/status", webhook.process.id()))?;
    let most =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let most = most.context("no VmHWM")? >> 10;
    ensure!(most < 500, "{most} MiB at most");
    Ok(())
}
