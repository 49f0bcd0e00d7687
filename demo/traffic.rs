//! The users of the model: they send handwritten digits to the pods that are ready, as a Service does, and count.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    stage::NAMESPACE,
    support::{ControlPlane, http},
};

/// Ten samples, one of each digit: the digit, then 64 grey values.
const SAMPLES: &str = include_str!("digits/samples.txt");

/// Requests so far. "Right" are those whose answer was the digit that was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) served: u32,
    pub(crate) right: u32,
    pub(crate) failed: u32,
}

/// Clients that run until this is dropped.
pub(crate) struct Traffic {
    count: Arc<Mutex<Count>>,
    stop: Arc<AtomicBool>,
    client: Option<JoinHandle<()>>,
}

impl Traffic {
    /// About 25 requests a second.
    pub(crate) fn start(plane: &ControlPlane) -> Result<Self> {
        let samples = samples()?;
        let reader = plane.reader();
        let (count, stop) = (Arc::new(Mutex::new(Count::default())), Arc::new(AtomicBool::new(false)));
        let (counting, stopping) = (Arc::clone(&count), Arc::clone(&stop));
        let client = thread::spawn(move || {
            let mut ready = Vec::new();
            for turn in 0_usize.. {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                // kube-proxy is told of a change at once; looking four times a second is no better than it.
                if turn % 6 == 0 || ready.is_empty() {
                    ready = reader.get(&slices()).ok().flatten().map_or(ready, |found| ready_pods(&found));
                }
                let sample = &samples[turn % samples.len()];
                let answer = ready.get(turn % ready.len().max(1)).map(|pod| ask(*pod, sample));
                let mut count = counting.lock().unwrap_or_else(PoisonError::into_inner);
                match answer {
                    Some(Ok((digit, _))) => {
                        count.served += 1;
                        count.right += u32::from(digit == sample.digit);
                    }
                    _ => count.failed += 1,
                }
                drop(count);
                thread::sleep(Duration::from_millis(40));
            }
        });
        Ok(Self { count, stop, client: Some(client) })
    }

    pub(crate) fn count(&self) -> Count {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ended = self.client.take().map(JoinHandle::join);
    }
}

impl Count {
    /// What came since an earlier count.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            served: self.served - earlier.served,
            right: self.right - earlier.right,
            failed: self.failed - earlier.failed,
        }
    }
}

fn slices() -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices")
}

/// One request to whichever pod is ready: the picture, and what the model makes of it.
pub(crate) fn one_prediction(plane: &ControlPlane, digit: u8) -> Result<(String, u8, String)> {
    let pods = ready_pods(&plane.get(&slices())?.context("no endpoints")?);
    let samples = samples()?;
    let sample = samples.iter().find(|sample| sample.digit == digit).context("no such sample")?;
    let (said, version) = ask(*pods.first().context("no pod is ready")?, sample)?;
    Ok((picture(sample), said, version))
}

struct Sample {
    digit: u8,
    pixels: Vec<u8>,
}

fn samples() -> Result<Vec<Sample>> {
    let sample = |line: &str| -> Result<Sample> {
        let mut numbers = line.split(' ').map(str::parse::<u8>);
        let digit = numbers.next().context("an empty line")??;
        Ok(Sample { digit, pixels: numbers.collect::<Result<_, _>>()? })
    };
    SAMPLES.lines().map(sample).collect()
}

fn picture(sample: &Sample) -> String {
    let shades = [" ", ".", ":", "+", "#"];
    let row = |row: &[u8]| row.iter().map(|&grey| shades[usize::from(grey) / 4].repeat(2)).collect::<String>();
    sample.pixels.chunks(8).map(|pixels| format!("    {}\n", row(pixels))).collect()
}

/// The digit that the model sees, and the model's version.
fn ask(pod: SocketAddr, sample: &Sample) -> Result<(u8, String)> {
    let input = json!({"name": "image", "datatype": "FP32", "shape": [1, 64], "data": sample.pixels});
    let answer = http::plain(pod, "/v2/models/digits/infer", Some(&json!({"inputs": [input]}).to_string()))?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    let answer: Value = serde_json::from_str(&answer.body)?;
    let digit = answer["outputs"][0]["data"][0].as_u64().context("no digit")?;
    Ok((u8::try_from(digit)?, answer["model_version"].as_str().unwrap_or_default().to_owned()))
}

/// Addresses of the pods that a Service would send requests to.
fn ready_pods(slices: &Value) -> Vec<SocketAddr> {
    let endpoints = slices["items"].as_array().into_iter().flatten().flat_map(|slice| slice["endpoints"].as_array());
    let ready = endpoints.flatten().filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready.filter_map(|endpoint| format!("{}:8000", endpoint["addresses"][0].as_str()?).parse().ok()).collect()
}
