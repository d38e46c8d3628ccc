//! The control room: a page that shows the three styles at work and lets people stop, pause, slow
//! and load what they work with.

mod ask;
mod board;
mod chart;
mod feed;
mod heads;
mod pour;
mod track;
mod view;
mod web;

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context as _;
use local_page::Access;
use tokio::sync::watch;

use crate::control::Control;
use crate::http;
use crate::ports::Ports;
use crate::screen::Screen;
use crate::seed::Demo;
use crate::service::Service;
use crate::system::{Links, SLOWED};

use ask::Question;
use board::{Board, Style};
use view::Asked;
use web::Shared;

/// What the control room works with.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) listener: TcpListener,
    pub(crate) control: Control,
    pub(crate) links: Option<Arc<Links>>,
    pub(crate) ports: Ports,
    pub(crate) nats_url: String,
    pub(crate) screen: Screen,
}

/// A control room that accepts connections once it is served.
#[derive(Debug)]
pub(crate) struct Open {
    room: Room,
    access: Access,
}

impl Room {
    /// Makes its address.
    pub(crate) fn open(self) -> anyhow::Result<Open> {
        let address = self.listener.local_addr();
        let address = address.context("read the control room's address")?;
        Ok(Open {
            room: self,
            access: Access::new("headwater-room", "cargo dev", address)?,
        })
    }
}

impl Open {
    /// Its address, with the token.
    pub(crate) fn url(&self) -> String {
        self.access.url()
    }

    /// Serves it until it is dropped; asks about `demo`.
    pub(crate) async fn serve(self, demo: Option<&Demo>) -> anyhow::Result<()> {
        let Self { room, access } = self;
        let Room {
            listener,
            control,
            links,
            ports,
            nats_url,
            screen,
        } = room;
        let (board, client) = (Board::new(), http::client()?);
        let viewers = watch::Sender::default();
        let question = demo.map(|demo| Question::new(client.clone(), &ports, &demo.user.id));
        let page = |style: Style| {
            let base = ports.url(Service::named(style.service()));
            let id = demo.map(|demo| &*demo.user.id).unwrap_or_default();
            (style, format!("{base}/users/{id}"))
        };
        let asked = demo.map(|demo| Asked {
            whose: demo.user.name.clone(),
            urls: Style::ALL.map(page),
        });
        let shared = Shared {
            board: board.clone(),
            control,
            links,
            client,
            orders_url: ports.url(Service::named(SLOWED)),
            asked: asked.zip(question.clone()),
            viewers: viewers.clone(),
        };
        let routes = access.guard(web::routes(shared));
        listener
            .set_nonblocking(true)
            .context("open the control room")?;
        let listener =
            tokio::net::TcpListener::from_std(listener).context("open the control room")?;
        let asking = async {
            match question {
                Some(question) => {
                    question
                        .keep_asking(board.clone(), viewers.subscribe())
                        .await;
                }
                None => std::future::pending().await,
            }
        };
        let feed = async {
            if let Err(error) = feed::watch(nats_url, board.clone()).await {
                screen.say(&format!("the control room shows no events: {error:#}"));
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = axum::serve(listener, routes) => served.context("serve the control room"),
            () = asking => Ok(()),
            () = feed => Ok(()),
        }
    }
}
