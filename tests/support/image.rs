//! Container images without a registry and without Docker: a tarball in Docker's archive format, which containerd
//! imports. One layer with a static binary is an image.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{
    archive::{Layer, Tar, architecture, sha256},
    run,
};

/// Where all images pretend to come from; nothing is ever pulled.
const REGISTRY: &str = "registry.local";

/// The sandbox of every pod.
pub(crate) const PAUSE: &str = "registry.local/pause:1";

/// How a version of the model server behaves. Everything but the good ones is a fault that some model once had.
pub(crate) struct Version {
    /// The image's tag.
    pub(crate) tag: &'static str,
    /// The model's file: one of `demo/digits/models`.
    model: &'static str,
    /// Cut the file in half.
    truncated: bool,
    /// What it is started with, besides its version.
    arguments: &'static [&'static str],
}

const fn version(tag: &'static str, arguments: &'static [&'static str]) -> Version {
    Version { tag, model: "v1", truncated: false, arguments }
}

/// Every version there is; `registry.local/digits:TAG`.
pub(crate) const VERSIONS: [Version; 10] = [
    version("1.0.0", &[]),
    // Runs, is alive, and is never ready.
    Version { tag: "2.0.0", model: "v3", truncated: true, arguments: &[] },
    Version { tag: "3.0.0", model: "v3", truncated: false, arguments: &[] },
    // Allocates past its limit: OOMKilled.
    version("4.0.0", &["--hoard=200"]),
    // Those of the tests are in a hurry.
    version("good", &["--loading=100ms"]),
    Version { tag: "better", model: "v3", truncated: false, arguments: &["--loading=100ms"] },
    version("broken", &["--loading=100ms", "--weights=/nowhere"]),
    version("late", &["--loading=100ms", "--fail-after=8s"]),
    version("hung", &["--loading=100ms", "--fail-after=2s", "--fail-live"]),
    version("crash", &["--crash-after=100ms"]),
];

/// The image of a version.
pub(crate) fn digits(tag: &str) -> String {
    format!("{REGISTRY}/digits:{tag}")
}

/// Builds the model server and writes one tarball with all images to `path`.
pub(crate) fn write_archive(path: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/digits");
    let binary = build(&source)?;
    let program = Layer::new(&[("digits", &binary, 0o755)])?;
    let mut archive = Archive::default();
    archive.image(PAUSE, &[&program], &["/digits".into(), "pause".into()])?;
    for version in &VERSIONS {
        let file = source.join("models").join(version.model).with_extension("txt");
        let mut model = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        if version.truncated {
            model.truncate(model.len() / 2);
        }
        let mut command = vec!["/digits".to_owned(), "serve".to_owned(), format!("--version={}", version.tag)];
        command.extend(version.arguments.iter().map(|&argument| argument.to_owned()));
        archive.image(&digits(version.tag), &[&program, &Layer::new(&[("model.txt", &model, 0o644)])?], &command)?;
    }
    fs::write(path, archive.finish()?).with_context(|| format!("writing {}", path.display()))
}

fn build(source: &Path) -> Result<Vec<u8>> {
    let binary = run::subfolder("digits")?.join("digits");
    let output = Command::new("go")
        .current_dir(source)
        .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(&binary)
        .arg(".")
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .output()
        .context("running `go build`")?;
    if !output.status.success() {
        bail!("building demo/digits failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    fs::read(&binary).context("reading the model server's binary")
}

/// Docker's archive format: layers, a configuration for each image, and `manifest.json` that ties them.
#[derive(Default)]
struct Archive {
    tar: Tar,
    written: Vec<String>,
    manifest: Vec<Value>,
}

impl Archive {
    fn image(&mut self, name: &str, layers: &[&Layer], command: &[String]) -> Result<()> {
        for layer in layers {
            self.once(&path(layer), &layer.tar)?;
        }
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": command, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| format!("sha256:{}", layer.digest)).collect::<Vec<_>>()},
        }))?;
        let config_path = format!("{}.json", sha256(&config));
        self.once(&config_path, &config)?;
        let layers: Vec<String> = layers.iter().map(|layer| path(layer)).collect();
        self.manifest.push(json!({"Config": config_path, "RepoTags": [name], "Layers": layers}));
        Ok(())
    }

    fn once(&mut self, path: &str, content: &[u8]) -> Result<()> {
        if !self.written.iter().any(|written| written == path) {
            self.tar.file(path, content, 0o644)?;
            self.written.push(path.to_owned());
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.tar.file("manifest.json", &serde_json::to_vec(&self.manifest)?, 0o644)?;
        Ok(self.tar.finish())
    }
}

fn path(layer: &Layer) -> String {
    format!("{}/layer.tar", layer.digest)
}
