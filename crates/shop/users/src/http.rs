//! The HTTP API: load, decide, append, save; answered after the fsync.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use headwater::database::{Snapshot, Tx};
use headwater::http::{Answer, IdempotencyKey, Invalid, Json, Path, Peer, Problem, with_position};
use headwater::idempotency::{self, Fingerprint, Key, Made};
use headwater::personal::Keys;
use headwater::{Database, Service, outbox};
use sea_orm::ConnectionTrait;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::names::Names;
use crate::password::{self, NoHash, Passwords};
use crate::store::Registration;
use crate::user::{Person, Register, Rejection, User};
use crate::{store, user};

/// What the handlers work with.
#[derive(Debug, Clone)]
struct Shared {
    db: Database,
    passwords: Passwords,
    names: Names,
}

pub(crate) fn routes(service: &Service, names: Names) -> anyhow::Result<OpenApiRouter> {
    let shared = Shared {
        db: service.db.clone(),
        passwords: Passwords::start()?,
        names,
    };
    Ok(OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(read, erase))
        .with_state(shared))
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let Rejection::Invalid(wrong) = rejection else {
            return Self::conflict(rejection.to_string());
        };
        let mut invalid = Invalid::none();
        for wrong in wrong {
            let pointer = match wrong {
                user::Invalid::NameLength | user::Invalid::Name(_) => "/name",
                user::Invalid::Email => "/email",
                user::Invalid::Password => "/password",
            };
            invalid.require(false, pointer, wrong.to_string());
        }
        invalid.check().expect_err("something is wrong")
    }
}

impl From<NoHash> for Problem {
    fn from(no_hash: NoHash) -> Self {
        match no_hash {
            NoHash::QueueFull => {
                Self::too_many_requests(no_hash.to_string(), password::RETRY_AFTER)
            }
            NoHash::Failed => Self::internal(),
        }
    }
}

/// Register a user
///
/// A repeated request with the same `Idempotency-Key` gets the same answer and changes nothing; the
/// password is not compared. Without a password, the same `id` is enough.
#[utoipa::path(
    post, path = "/users", tag = "users",
    params(IdempotencyKey),
    request_body = Register,
    responses(
        (status = 201, body = User, headers(("Headwater-Position" = String, description = "The position of its event: users:12"))),
        (status = 409, description = "The id is taken or was erased, or another user logs in with the e-mail address. Without a password, the same request with the same id is not a conflict"),
        (status = 410, description = "The user that the key registered has been erased"),
        (status = 422, description = "A field is invalid, or the key was used for another request"),
        (status = 429, description = "Too many passwords wait to be hashed; try again after `Retry-After` seconds"),
    )
)]
async fn register(
    State(shared): State<Shared>,
    Peer(peer): Peer,
    key: IdempotencyKey,
    Json(request): Json<Register>,
) -> Result<Answer, Problem> {
    request.check()?;
    let Shared {
        db,
        passwords,
        names,
    } = shared;
    let command = Arc::new(Command {
        key: key.scoped("POST /users"),
        id: request.id.unwrap_or_else(|| db.clock().new_id()),
        fingerprint: request.fingerprint(),
        request,
    });
    let mut password_hash = None;
    if let Some(password) = command.request.password.clone() {
        let looked_up = Arc::clone(&command);
        if let Some(answer) = db.read(move |at| looked_up.earlier(at, at.keys())).await? {
            return Ok(answer);
        }
        let kept_hash = passwords.take_kept(&command.key, &command.fingerprint);
        password_hash = Some(match kept_hash {
            Some(hash) => hash,
            None => passwords.hash(peer, password).await?,
        });
    }
    let (saved, hash) = (Arc::clone(&command), password_hash.clone());
    let written = db.write(move |tx| saved.save(tx, hash, &names)).await;
    written.map(|written| written.value).map_err(|error| {
        let problem = Problem::from(error);
        if let Some(hash) = password_hash
            && problem.status() == StatusCode::SERVICE_UNAVAILABLE
        {
            passwords.keep(&command.key, &command.fingerprint, hash);
        }
        problem
    })
}

/// A registration, and what identifies a repetition of it: never the password, so that neither an
/// answer nor its duration depends on a guessed password.
#[derive(Debug)]
struct Command {
    key: Key,
    id: Uuid,
    fingerprint: Fingerprint,
    request: Register,
}

impl Command {
    /// The answer that is known before the password is hashed: the key's earlier answer, or the
    /// reason of a refusal.
    fn earlier(&self, db: &impl ConnectionTrait, keys: &Keys) -> Result<Option<Answer>, Problem> {
        let answer = idempotency::earlier::<_, Problem>(db, keys, &self.key, &self.fingerprint)?;
        if answer.is_none() {
            self.registered(db, keys)?;
        }
        Ok(answer)
    }

    /// The user that an earlier copy of this request registered. Fails if another user is in the
    /// way.
    fn registered(
        &self,
        db: &impl ConnectionTrait,
        keys: &Keys,
    ) -> Result<Option<Registration>, Problem> {
        let Self { id, request, .. } = self;
        let wants_login = request.password.is_some();
        if let Some(row) = store::find(db, keys, *id)? {
            if wants_login || row.fingerprint != self.fingerprint.0 {
                return Err(Rejection::IdTaken(*id).into());
            }
            return Ok(Some(row));
        }
        if store::is_erased(db, *id)? {
            return Err(Rejection::Erased(*id).into());
        }
        if wants_login && store::is_login(db, keys, &request.email)? {
            return Err(Rejection::EmailTaken.into());
        }
        Ok(None)
    }

    fn save(
        &self,
        tx: &Tx,
        password_hash: Option<String>,
        names: &Names,
    ) -> Result<Answer, Problem> {
        idempotency::once(tx, &self.key, &self.fingerprint, || {
            if let Some(row) = self.registered(tx, tx.keys())? {
                return Ok(answer(tx, row));
            }
            let person = Person {
                name: self.request.name.clone(),
                email: self.request.email.clone(),
                password_hash,
            };
            let now = tx.now_ms();
            let position = outbox::append(tx, &user::registered_event(self.id, now))?.position;
            let row = store::insert(tx, self.id, person, now, &self.fingerprint.0, position)?;
            names.note(tx, self.id);
            Ok(answer(tx, row))
        })
    }
}

fn answer(tx: &Tx, row: Registration) -> (Answer, Made) {
    let (location, position) = (format!("/users/{}", row.id), outbox::unsigned(row.position));
    let position = outbox::position(tx, position);
    let answer = Answer::created(location, position, &User::from(&row));
    (answer, Made::person(row.id.to_string(), row.key))
}

/// Read a user
///
/// `Headwater-Position` has the position of the answer, also for 404.
#[utoipa::path(
    get, path = "/users/{id}", tag = "users",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = User, headers(("Headwater-Position" = String, description = "The position of the answer: users:12"))),
        (status = 404, description = "There is no such user"),
    )
)]
async fn read(
    State(Shared { db, .. }): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let find = move |snapshot: &Snapshot| store::find(snapshot, snapshot.keys(), id);
    let (row, as_of) = db.read_as_of(find).await?;
    let answer = row.map(|row| axum::Json(User::from(&row)));
    Ok(with_position(&as_of, answer.ok_or_else(|| unknown(id))))
}

/// Erase a user
///
/// Erases the user here and, through the event, in every other service. This cannot be undone. A
/// repeated request changes nothing.
#[utoipa::path(
    delete, path = "/users/{id}", tag = "users",
    params(("id" = Uuid, Path)),
    responses(
        (status = 204, headers(("Headwater-Position" = String, description = "The position of its event: users:13"))),
        (status = 404, description = "There is no such user"),
    )
)]
async fn erase(
    State(Shared { db, names, .. }): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let written = db.write(move |tx| {
        if let Some(position) = store::erased_at(tx, id)? {
            return Ok(outbox::position(tx, position));
        }
        let row = store::find_encrypted(tx, id)?.ok_or_else(|| unknown(id))?;
        let position = outbox::append(tx, &user::erased_event(id))?;
        store::erase(tx, &row, position.position)?;
        names.note(tx, id);
        idempotency::forget(tx, [id.to_string()])?;
        Ok::<_, Problem>(position)
    });
    let position = written.await?.value;
    Ok(with_position(&position, StatusCode::NO_CONTENT))
}

fn unknown(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no user {id}"))
}
