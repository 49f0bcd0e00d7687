//! Every write of a revert to a Deployment, and the reads that go with one. Each is guarded by uid and
//! `metadata.generation` and answers in [`WRITE_LIMIT`]; those of the controller are made under the lease.

use std::{fmt, future::Future};

use kube::{
    Client,
    api::{GetParams, Patch, PatchParams},
    core::Request,
};
use serde_json::Value;
use tokio::time::timeout;

use super::lease::{Leadership, WRITE_LIMIT};
use crate::{cluster::Attempt, template::keys};

/// Why a write was not made, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// Something has changed meanwhile: decide again from what is there.
    Changed,
    /// It is not said whether it was made, or it may work later: decide again in a while.
    Later(String),
    /// The API server will not have it.
    Refused(String),
    /// This process does not lead any more.
    NotLeading,
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("it has changed meanwhile"),
            Self::Later(why) | Self::Refused(why) => f.write_str(why),
            Self::NotLeading => f.write_str("another controller may lead"),
        }
    }
}

/// The one writer of Deployments.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) client: Client,
    /// Of this process; `None` where a person writes, whose rights are their own and who needs no lease: the guards of
    /// each write hold against the controller, too.
    pub(super) leadership: Option<Leadership>,
}

impl Writer {
    /// Ask this right before each write.
    pub(super) fn may_write(&self) -> bool {
        self.leadership.as_ref().is_none_or(Leadership::still_leading)
    }

    /// An object, whole; `None`: it is not there.
    pub(super) async fn read(&self, plural: &str, namespace: &str, name: &str) -> Result<Option<Value>, Unwritten> {
        let attempt = Attempt::new("get", plural).within(namespace).named(name);
        let request = Request::new(path(plural, namespace)).get(name, &GetParams::default());
        let request = request.map_err(|error| Unwritten::Later(error.to_string()))?;
        match self.limited(self.client.request::<Value>(request)).await? {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(Unwritten::Later(attempt.explain(&error))),
        }
    }

    /// Patches a Deployment; gives it as it is afterwards.
    pub(super) async fn patch(
        &self,
        namespace: &str,
        name: &str,
        operations: Vec<Value>,
        dry_run: bool,
    ) -> Result<Value, Unwritten> {
        if !self.may_write() {
            return Err(Unwritten::NotLeading);
        }
        let attempt = Attempt::new("patch", "deployments").within(namespace).named(name);
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations))
            .map_err(|error| Unwritten::Refused(format!("no JSON patch: {error}")))?;
        let params =
            PatchParams { dry_run, field_manager: Some(keys::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let request = Request::new(path("deployments", namespace)).patch(name, &params, &Patch::Json::<()>(patch));
        let request = request.map_err(|error| Unwritten::Later(error.to_string()))?;
        self.limited(self.client.request(request)).await?.map_err(|error| unwritten(&attempt, &error))
    }

    /// Waits for an answer no longer than a write may take.
    pub(super) async fn limited<T>(&self, answer: impl Future<Output = T>) -> Result<T, Unwritten> {
        timeout(WRITE_LIMIT, answer).await.map_err(|_| Unwritten::Later("the API server does not answer".to_owned()))
    }
}

fn path(plural: &str, namespace: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/{plural}")
}

/// 422 is what a failing `test` gives, and also what an invalid object gives: whoever asks again finds out which.
fn unwritten(attempt: &Attempt, error: &kube::Error) -> Unwritten {
    match error {
        kube::Error::Api(status) => match status.code {
            404 | 409 => Unwritten::Changed,
            401 | 408 | 429 | 500.. => Unwritten::Later(attempt.explain(error)),
            _ => Unwritten::Refused(attempt.explain(error)),
        },
        _ => Unwritten::Later(attempt.explain(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_means_for_the_next_try() {
        let meaning = |code: u16| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            match unwritten(&Attempt::new("patch", "deployments"), &kube::Error::Api(Box::new(status))) {
                Unwritten::Changed => "changed",
                Unwritten::Later(_) => "later",
                Unwritten::Refused(_) => "refused",
                Unwritten::NotLeading => "not leading",
            }
        };
        for (code, wanted) in [
            (400, "refused"),
            // A token that has run out is the controller's matter, not the template's.
            (401, "later"),
            (403, "refused"),
            (404, "changed"),
            (409, "changed"),
            (422, "refused"),
            (429, "later"),
            (500, "later"),
            (503, "later"),
        ] {
            assert_eq!(meaning(code), wanted, "{code}");
        }
    }
}
