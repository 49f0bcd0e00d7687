//! Nodes that KWOK simulates: their pods are ready at once and run nothing. For thousands of Deployments; what a probe does is
//! not seen on them.

use std::{fmt::Write as _, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};

use super::{
    control_plane::ControlPlane,
    run::{self, Process},
    tools::{kwok, kwok_stages},
    watch::{Look, until},
};

/// Simulated nodes of one control plane; they fall silent when this is dropped.
pub(crate) struct SimulatedNodes {
    names: Vec<String>,
    _kwok: Process,
}

impl SimulatedNodes {
    /// Makes `count` nodes without limits and waits until all are ready.
    pub(crate) fn start(plane: &ControlPlane, count: usize) -> Result<Self> {
        let folder = run::subfolder("kwok")?;
        let mut command = Command::new(kwok()?);
        command.args(["--manage-nodes-with-annotation-selector", "kwok.x-k8s.io/node=fake"]);
        // Without it they are taken for lost after 40 s.
        command.args(["--node-lease-duration-seconds", "40"]);
        command.arg("--kubeconfig").arg(plane.folder().join("admin.kubeconfig"));
        for stage in ["node/fast", "node/heartbeat-with-lease", "pod/fast"] {
            for file in files(&kwok_stages()?.join(stage))? {
                command.arg("--config").arg(file);
            }
        }
        let mut kwok = Process::start("kwok", &folder, command)?;
        let names: Vec<String> = (0..count).map(|number| format!("simulated-{number}")).collect();
        let nodes = names.iter().fold(String::new(), |mut nodes, name| {
            let _ = writeln!(
                nodes,
                "---\n{{apiVersion: v1, kind: Node, metadata: {{name: {name}, annotations: {{kwok.x-k8s.io/node: fake}}}}}}"
            );
            nodes
        });
        plane.admin().apply(&nodes)?;
        until("the simulated nodes to be ready", Duration::from_secs(60), || {
            kwok.check()?;
            let nodes = plane.get("/api/v1/nodes")?.unwrap_or_default();
            let ready = nodes.to_string().matches("KubeletReady").count();
            Ok(if ready >= count { Look::Done(()) } else { Look::Not(format!("{ready} of {count}")) })
        })
        .map_err(|error| anyhow!("{error:#}\n{}", kwok.tail(20)))?;
        Ok(Self { names, _kwok: kwok })
    }

    /// The node for the `number`th of something.
    pub(crate) fn name(&self, number: usize) -> &str {
        &self.names[number % self.names.len()]
    }
}

/// The stages of a folder; its `kustomization.yaml` is none.
fn files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let read = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<_> = read.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| {
        file.extension().is_some_and(|it| it == "yaml") && file.file_stem().is_some_and(|it| it != "kustomization")
    });
    files.sort();
    ensure!(!files.is_empty(), "no stages in {}", folder.display());
    Ok(files)
}
