//! Replaces the NATS CLI where it is not installed: sends the requests that the page's commands
//! send, according to the CLI's source, and returns the answers of server and services.

use async_nats::{Client, HeaderMap};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use e2e::PATIENCE;
use futures_util::StreamExt as _;
use prost::Message as _;
use serde_json::{Value, json};

use super::document::words;
use super::shell;
use crate::dev::Dev;

pub(super) fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Sends the requests of a command line; returns the answer or an error.
pub(super) async fn run(dev: &Dev, line: &str) -> Result<String, String> {
    let client = async_nats::connect(dev.nats_url()).await;
    let nats = Nats {
        client: client.map_err(|error| error.to_string())?,
        dev,
    };
    let words = words(line);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match &words[1..] {
        ["stream", "ls", ..] | ["kv", "ls"] => nats.listed("STREAM.LIST", "streams").await,
        ["stream", "subjects", stream] => nats.subjects(stream, ">").await,
        ["stream", "info", stream, "--json"] => {
            nats.api(&format!("STREAM.INFO.{stream}"), &json!({})).await
        }
        [
            "stream",
            "view",
            stream,
            "--subject",
            subject,
            "--translate",
            program,
        ] => nats.view(stream, subject, program).await,
        ["stream", "get", stream, sequence, "--translate", program] => {
            let wanted = json!({"seq": sequence.parse::<u64>().unwrap()});
            let answer = nats
                .api(&format!("STREAM.MSG.GET.{stream}"), &wanted)
                .await?;
            let message = value(&answer)["message"].take();
            let body = BASE64_STANDARD
                .decode(message["data"].as_str().unwrap())
                .unwrap();
            nats.translate(program, message["subject"].as_str().unwrap(), &body)
                .await
        }
        ["sub", subject, "--translate", program] => nats.sub(subject, program).await,
        ["consumer", "report", stream] => {
            nats.listed(&format!("CONSUMER.LIST.{stream}"), "consumers")
                .await
        }
        ["consumer", "info", stream, consumer, "--json"] => {
            nats.api(&format!("CONSUMER.INFO.{stream}.{consumer}"), &json!({}))
                .await
        }
        [
            "consumer",
            "edit",
            stream,
            consumer,
            "--metadata",
            pair,
            "--force",
        ] => nats.edit(stream, consumer, pair).await,
        ["req", subject, body] => nats.request(subject, body).await,
        ["micro", "ls" | "ping"] => nats.request("$SRV.PING", "").await,
        ["micro", what @ ("info" | "stats"), service, "--json"] => {
            let subject = format!("$SRV.{}.{service}", what.to_uppercase());
            nats.request(&subject, "").await
        }
        ["server", "check", check, flags @ ..] => nats.check(check, flags).await,
        ["kv", "ls", bucket] => nats.subjects(&format!("KV_{bucket}"), "$KV.>").await,
        ["kv", "get", bucket, key, "--raw"] => nats.entry(bucket, key).await,
        [
            "kv",
            "get",
            bucket,
            key,
            "--raw",
            "|",
            "jq",
            "-r",
            ".descriptors",
            "|",
            "base64",
            "-d",
            ">",
            _,
        ] => {
            let entry = nats.entry(bucket, key).await?;
            let descriptors = value(&entry)["descriptors"].take();
            let set = BASE64_STANDARD
                .decode(descriptors.as_str().unwrap())
                .unwrap();
            let set = prost_types::FileDescriptorSet::decode(&*set).unwrap();
            assert!(!set.file.is_empty());
            Ok(entry)
        }
        _ => panic!("the requests of `{line}` are unknown: add them to this test"),
    }
}

fn value(answer: &str) -> Value {
    serde_json::from_str(answer).unwrap_or_else(|_| panic!("not JSON: {answer}"))
}

struct Nats<'a> {
    client: Client,
    dev: &'a Dev,
}

impl Nats<'_> {
    /// The answer of an endpoint; for a refusal, its headers.
    async fn request(&self, subject: &str, body: &str) -> Result<String, String> {
        let request = self
            .client
            .request(subject.to_owned(), body.to_owned().into());
        let answer = request
            .await
            .map_err(|error| format!("{subject}: {error}"))?;
        let headers = answer.headers.unwrap_or_else(HeaderMap::new);
        let shown = ["Nats-Service-Error", "Nats-Service-Error-Code"].map(|name| {
            let value = headers.get(name);
            value.map_or_else(String::new, |value| format!("{name}: {value}\n"))
        });
        Ok(shown.concat() + str::from_utf8(&answer.payload).unwrap())
    }

    /// The answer of JetStream, which must not be an error.
    async fn api(&self, endpoint: &str, request: &Value) -> Result<String, String> {
        let answer = self
            .request(&format!("$JS.API.{endpoint}"), &request.to_string())
            .await?;
        if value(&answer)["error"].is_null() {
            Ok(answer)
        } else {
            Err(answer)
        }
    }

    async fn listed(&self, endpoint: &str, what: &str) -> Result<String, String> {
        let answer = self.api(endpoint, &json!({"offset": 0})).await?;
        let is_empty = value(&answer)[what].as_array().is_none_or(Vec::is_empty);
        if is_empty { Err(answer) } else { Ok(answer) }
    }

    async fn subjects(&self, stream: &str, filter: &str) -> Result<String, String> {
        let wanted = json!({"subjects_filter": filter});
        let answer = self.api(&format!("STREAM.INFO.{stream}"), &wanted).await?;
        let subjects = value(&answer)["state"]["subjects"].take();
        if subjects.as_object().is_none_or(serde_json::Map::is_empty) {
            return Err(answer);
        }
        Ok(answer)
    }

    async fn view(&self, stream: &str, subject: &str, program: &str) -> Result<String, String> {
        let config = json!({
            "deliver_policy": "all", "ack_policy": "none", "filter_subject": subject,
            "inactive_threshold": 60_000_000_000_u64, "mem_storage": true,
        });
        let made = json!({"stream_name": stream, "config": config});
        let made = self
            .api(&format!("CONSUMER.CREATE.{stream}"), &made)
            .await?;
        let name = value(&made)["name"].as_str().unwrap().to_owned();
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
        let wanted = json!({"batch": 1, "no_wait": true}).to_string();
        // The answer has its own subject, which a client's request does not accept.
        let inbox = self.client.new_inbox();
        let mut messages = self.client.subscribe(inbox.clone()).await.unwrap();
        let asked = self.client.publish_with_reply(next, inbox, wanted.into());
        asked.await.unwrap();
        let message = tokio::time::timeout(PATIENCE, messages.next()).await;
        let message = message
            .map_err(|_| format!("nothing on {subject}"))?
            .unwrap();
        self.translate(program, &message.subject, &message.payload)
            .await
    }

    /// Receives one message.
    async fn sub(&self, subject: &str, program: &str) -> Result<String, String> {
        let mut messages = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.client.flush().await.unwrap();
        self.dev.cause(subject).await;
        let message = tokio::time::timeout(PATIENCE, messages.next()).await;
        let message = message
            .map_err(|_| format!("nothing on {subject}"))?
            .unwrap();
        self.translate(program, &message.subject, &message.payload)
            .await
    }

    /// The program's output for a body.
    async fn translate(&self, program: &str, subject: &str, body: &[u8]) -> Result<String, String> {
        let file = self.dev.folder().join("body");
        std::fs::write(&file, body).unwrap();
        let line = program.replace("{{Subject}}", subject);
        shell(self.dev, &format!("{line} < body"), false).await
    }

    async fn edit(&self, stream: &str, consumer: &str, pair: &str) -> Result<String, String> {
        let info = self
            .api(&format!("CONSUMER.INFO.{stream}.{consumer}"), &json!({}))
            .await?;
        let mut config = value(&info)["config"].take();
        let (name, wanted) = pair.split_once(':').unwrap();
        config["metadata"] = json!({ name: wanted });
        let edit = json!({"stream_name": stream, "config": config, "action": "update"});
        let edited = self
            .api(&format!("CONSUMER.CREATE.{stream}.{consumer}"), &edit)
            .await?;
        // The doctor must find the consumer that the API returned by name.
        let doctor = shell(self.dev, "headwater doctor", false).await?;
        assert!(doctor.contains("ok    consumers "), "{doctor}");
        Ok(edited)
    }

    /// An entry of a bucket, from the stream's leader.
    async fn entry(&self, bucket: &str, key: &str) -> Result<String, String> {
        self.last(&format!("KV_{bucket}"), &format!("$KV.{bucket}.{key}"))
            .await
    }

    /// The last message on a subject. For a stream with direct gets, the subject is a part of the
    /// request's subject, so it must have no wildcards.
    async fn last(&self, stream: &str, subject: &str) -> Result<String, String> {
        assert!(!subject.contains(['*', '>']), "{subject} has wildcards");
        let subject = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
        let answer = self.client.request(subject.clone(), "".into()).await;
        let answer = answer.map_err(|error| format!("{subject}: {error}"))?;
        match answer.status {
            Some(status) => Err(format!("{subject}: {status}")),
            None => Ok(String::from_utf8_lossy(&answer.payload).into_owned()),
        }
    }

    async fn check(&self, check: &str, flags: &[&str]) -> Result<String, String> {
        let flag = |name: &str| {
            let place = flags.iter().position(|flag| *flag == name);
            place.map_or(">", |place| flags[place + 1])
        };
        let stream = flag("--stream");
        let watched = async |info: Result<String, String>| {
            let info = info?;
            let enabled = value(&info)["config"]["metadata"]["io.nats.monitor.enabled"].take();
            if enabled == "true" {
                Ok(info)
            } else {
                Err(info)
            }
        };
        match check {
            "stream" => watched(self.api(&format!("STREAM.INFO.{stream}"), &json!({})).await).await,
            "consumer" => {
                let consumer = flag("--consumer");
                let endpoint = format!("CONSUMER.INFO.{stream}.{consumer}");
                watched(self.api(&endpoint, &json!({})).await).await
            }
            "kv" => self.entry(flag("--bucket"), flag("--key")).await,
            "request" => {
                let answer = self.request(flag("--subject"), "").await?;
                let is_matched = answer.contains(flag("--match-payload"));
                if is_matched { Ok(answer) } else { Err(answer) }
            }
            "message" => self.last(stream, flag("--subject")).await,
            other => panic!("the requests of `nats server check {other}` are unknown"),
        }
    }
}
