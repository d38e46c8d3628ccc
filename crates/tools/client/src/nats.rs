//! The NATS connection, and requests to the services' admin endpoints.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::connection::State;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::service::{self, NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{Client, ConnectErrorKind, Request, RequestErrorKind, ServerAddr};
use futures_util::StreamExt as _;
use headwater::operator::{Endpoint, StatusAnswer, StatusRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::Args;
use crate::failure::{Error, Refusal, Unreachable};
use crate::settings::Settings;

/// The number of services is unknown: after this long without another answer, none is expected.
const QUIET: Duration = Duration::from_millis(500);

/// How often a page is requested if it does not arrive. If the account's payload limit is below the
/// server's, the service learns of it by losing an answer.
const PAGE_ATTEMPTS: usize = 3;

/// A connection to NATS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Nats {
    pub client: Client,
    pub jetstream: jetstream::Context,
    /// The subject prefix of the JetStream API.
    pub api_prefix: String,
    /// How long the server or a service may take to answer.
    pub timeout: Duration,
    url: String,
    servers: Vec<ServerAddr>,
}

impl Nats {
    /// Returns [`Error::Misconfigured`] if the settings are wrong, [`Error::Unreachable`] if the
    /// server does not accept the connection in time.
    pub async fn connect(args: &Args) -> Result<Self, Error> {
        Self::connect_to(&args.resolve()?).await
    }

    /// [`connect`](Self::connect) with resolved settings.
    pub async fn connect_to(settings: &Settings) -> Result<Self, Error> {
        let (url, timeout) = (settings.place(), settings.timeout);
        let refused = || Unreachable::Login {
            url: url.clone(),
            who: settings.who(),
        };
        let mut connected = Err(refused());
        for options in settings.attempts().await? {
            let connecting = options.connect(&settings.servers[..]);
            connected = match tokio::time::timeout(timeout, connecting).await {
                Ok(Ok(client)) => Ok(client),
                Ok(Err(error)) => Err(match error.kind() {
                    ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                        refused()
                    }
                    _ => Unreachable::Broker {
                        url: url.clone(),
                        why: settings.explain(&error.to_string()),
                    },
                }),
                Err(_) => Err(Unreachable::Broker {
                    url: url.clone(),
                    why: settings.explain(&format!("no answer within {timeout:?}")),
                }),
            };
            if matches!(connected, Ok(_) | Err(Unreachable::Login { .. })) {
                break;
            }
        }
        let client = connected?;
        Ok(Self {
            jetstream: settings.jetstream(client.clone()),
            api_prefix: settings.api_prefix(),
            client,
            url,
            servers: settings.servers.clone(),
            timeout,
        })
    }

    /// The servers of `--server`, the environment or the context.
    pub fn servers(&self) -> &[ServerAddr] {
        &self.servers
    }

    /// Calls an endpoint of a service.
    pub async fn ask<A: DeserializeOwned>(
        &self,
        service: &str,
        endpoint: Endpoint,
        request: &impl Serialize,
    ) -> Result<A, Error> {
        self.ask_within(self.timeout, service, endpoint, request)
            .await
    }

    /// [`ask`](Self::ask) with a longer timeout.
    pub async fn ask_within<A: DeserializeOwned>(
        &self,
        timeout: Duration,
        service: &str,
        endpoint: Endpoint,
        request: &impl Serialize,
    ) -> Result<A, Error> {
        let payload = serde_json::to_vec(request).context("write the request")?;
        let subject = endpoint.subject(service);
        let mut attempts = if endpoint.is_paged() {
            PAGE_ATTEMPTS
        } else {
            1
        };
        let answer = loop {
            let request = Request::new().payload(payload.clone().into());
            let request = request.timeout(Some(timeout));
            attempts -= 1;
            match self.client.send_request(subject.clone(), request).await {
                Err(error) if error.kind() == RequestErrorKind::TimedOut && attempts > 0 => {}
                asked => break asked.map_err(|error| self.no_answer(service, error.kind()))?,
            }
        };
        let header = |name| {
            let value = answer.headers.as_ref()?.get(name)?;
            Some(value.as_str().to_owned())
        };
        if let Some(reason) = header(NATS_SERVICE_ERROR) {
            let refusal = Refusal {
                service: service.to_owned(),
                endpoint,
                code: header(NATS_SERVICE_ERROR_CODE).unwrap_or_default(),
                reason,
            };
            return Err(refusal.into());
        }
        let answer = serde_json::from_slice(&answer.payload);
        let what = || format!("read what {service} answered to {}", endpoint.name());
        Ok(answer.with_context(what)?)
    }

    /// The status of a service.
    pub async fn status(&self, service: &str) -> Result<StatusAnswer, Error> {
        let request = StatusRequest::default();
        self.ask(service, Endpoint::Status, &request).await
    }

    /// The stream of this name; `None` if it does not exist. Returns [`Unreachable`] if the
    /// connection is lost.
    pub async fn stream(&self, name: &str) -> anyhow::Result<Option<Stream>> {
        match self.jetstream.get_stream(name).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if is_missing(&error.kind()) => Ok(None),
            Err(error) => {
                self.expect_connected()?;
                Err(error).with_context(|| format!("look up the stream {name}"))
            }
        }
    }

    /// The names of the services that offer `endpoint`: a service without a database does not offer
    /// all.
    pub async fn services_with(&self, endpoint: Endpoint) -> anyhow::Result<Vec<String>> {
        let mut instances = self.instances().await?;
        instances.retain(|_, infos| infos.iter().any(|info| offers(info, endpoint)));
        Ok(instances.into_keys().collect())
    }

    /// The instances that answer, by the name of their service.
    pub async fn instances(&self) -> anyhow::Result<BTreeMap<String, Vec<service::Info>>> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await?;
        self.client
            .publish_with_reply("$SRV.INFO", inbox, "".into())
            .await?;
        let mut instances: BTreeMap<String, Vec<service::Info>> = BTreeMap::new();
        // If no such service exists, the server answers with an empty message.
        while let Ok(Some(answer)) = tokio::time::timeout(QUIET, answers.next()).await {
            if let Ok(info) = serde_json::from_slice::<service::Info>(&answer.payload)
                && offers(&info, Endpoint::Status)
            {
                instances.entry(info.name.clone()).or_default().push(info);
            }
        }
        self.expect_connected()?;
        Ok(instances)
    }

    /// Returns [`Unreachable`] if the connection is lost, which then explains any other failure.
    pub fn expect_connected(&self) -> Result<(), Unreachable> {
        if self.client.connection_state() == State::Connected {
            return Ok(());
        }
        Err(Unreachable::Broker {
            url: self.url.clone(),
            why: "the connection is lost".to_owned(),
        })
    }

    fn no_answer(&self, service: &str, kind: RequestErrorKind) -> Unreachable {
        self.expect_connected()
            .err()
            .unwrap_or_else(|| Unreachable::Service {
                service: service.to_owned(),
                why: kind.to_string(),
            })
    }
}

fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Whether a service offers `endpoint`. Foreign services on the same server do not have `status`.
fn offers(info: &service::Info, endpoint: Endpoint) -> bool {
    let subject = endpoint.subject(&info.name);
    info.endpoints
        .iter()
        .any(|endpoint| endpoint.subject == subject)
}
