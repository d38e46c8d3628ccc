//! The HTTP API: load, decide, save, append; answered after the fsync.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use headwater::database::Tx;
use headwater::http::{About, Answer, IdempotencyKey, Json, Path, Problem, with_position};
use headwater::idempotency::{self, Fingerprint, Key};
use headwater::{Database, Service, outbox};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::password::Passwords;
use crate::user::{Register, Registration, User};
use crate::{NAME, store, user};

/// What the handlers work with.
#[derive(Debug, Clone)]
struct Shared {
    db: Database,
    passwords: Passwords,
}

pub(crate) fn app(service: &Service) -> Router {
    let shared = Shared {
        db: service.db.clone(),
        passwords: Passwords::new(),
    };
    let routes = OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(read, erase))
        .with_state(shared);
    let about = About {
        name: NAME,
        description: "Registers users and erases them. The only service that knows names and e-mail addresses.",
    };
    headwater::http::app(about, routes, service.health.clone(), &service.config.http)
}

/// Register a user
///
/// The same request again, under the same `Idempotency-Key` or with the same `id`, gives the
/// same answer and changes nothing.
#[utoipa::path(
    post, path = "/users", tag = "users",
    params(IdempotencyKey),
    request_body = Register,
    responses(
        (status = 201, body = User, headers(("Headwater-Position" = String, description = "Where its event is: users:12"))),
        (status = 409, description = "The id is taken by a user from another request, or somebody logs in with the e-mail address"),
        (status = 410, description = "What the key made was erased since"),
        (status = 422, description = "A field is wrong, or the key came with another request"),
    )
)]
async fn register(
    State(shared): State<Shared>,
    key: IdempotencyKey,
    Json(request): Json<Register>,
) -> Result<Answer, Problem> {
    request.check()?;
    let key = key.scoped("POST /users");
    match attempt(&shared, &key, &request).await {
        // The same request may have been saved after its hash was looked for: then there is one
        // now, and the two are known to be the same.
        Err(_) if request.password.is_some() => attempt(&shared, &key, &request).await,
        answer => answer,
    }
}

async fn attempt(shared: &Shared, key: &Key, request: &Register) -> Result<Answer, Problem> {
    let Shared { db, passwords } = shared;
    let password_hash = match request.password.clone() {
        Some(password) => {
            let earlier = earlier_hash(db, key, request.id).await?;
            Some(passwords.hash(password, earlier).await?)
        }
        None => None,
    };
    let registration = Registration {
        id: request.id,
        name: request.name.clone(),
        email: request.email.clone(),
        password_hash,
    };
    let id = request.id.unwrap_or_else(|| db.clock().new_id());
    let key = key.clone();
    let written = db.write(move |tx| save(tx, &key, id, registration));
    Ok(written.await?.value)
}

/// The hash stored by the registration that this one may be the repetition of.
async fn earlier_hash(
    db: &Database,
    key: &Key,
    id: Option<Uuid>,
) -> Result<Option<String>, Problem> {
    let key = key.clone();
    db.read(move |snapshot| {
        let entity = idempotency::entity(snapshot, &key)?;
        let id = entity.and_then(|entity| entity.parse().ok()).or(id);
        let row = id
            .map(|id| store::find(snapshot, id))
            .transpose()?
            .flatten();
        Ok(row.and_then(|row| row.password_hash))
    })
    .await
}

fn save(tx: &Tx, key: &Key, id: Uuid, registration: Registration) -> Result<Answer, Problem> {
    let fingerprint = Fingerprint::of(&registration);
    idempotency::once(tx, key, &fingerprint, || {
        let entity = id.to_string();
        if let Some(row) = store::find(tx, id)? {
            if row.fingerprint != fingerprint.0 {
                return Err(Problem::conflict(format!(
                    "there is a user {id} from another request; leave the id out for a new user"
                )));
            }
            return Ok((answer(tx, row), entity));
        }
        if store::find_erased(tx, id)?.is_some() {
            return Err(Problem::conflict(format!(
                "the user {id} was erased; leave the id out for a new user"
            )));
        }
        let wants_login = registration.password_hash.is_some();
        if wants_login && store::find_login(tx, &registration.email)?.is_some() {
            return Err(Problem::conflict(
                "somebody logs in with this e-mail address already; use another one",
            ));
        }
        let now = tx.now_ms();
        let position = outbox::append(tx, &user::registered_event(id, now))?;
        let row = store::insert(tx, id, registration, now, &fingerprint.0, position.position)?;
        Ok((answer(tx, row), entity))
    })
}

fn answer(tx: &Tx, row: store::row::Model) -> Answer {
    let position = outbox::position(tx, outbox::unsigned(row.position));
    Answer::created(format!("/users/{}", row.id), position, &User::from(row))
}

/// Read a user
///
/// The answer, also that there is none, says what it is as of.
#[utoipa::path(
    get, path = "/users/{id}", tag = "users",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = User, headers(("Headwater-Position" = String, description = "What the answer is as of: users:12"))),
        (status = 404, description = "There is no such user"),
    )
)]
async fn read(
    State(Shared { db, .. }): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let find = move |snapshot: &_| store::find(snapshot, id);
    let (row, as_of) = db.read_as_of(find).await?;
    let answer = row.map(|row| axum::Json(User::from(row)));
    Ok(with_position(&as_of, answer.ok_or_else(|| unknown(id))))
}

/// Erase a user
///
/// Here and, by the event, in every other service. There is no way back. A second time does
/// nothing.
#[utoipa::path(
    delete, path = "/users/{id}", tag = "users",
    params(("id" = Uuid, Path)),
    responses(
        (status = 204, headers(("Headwater-Position" = String, description = "Where its event is: users:13"))),
        (status = 404, description = "There is no such user"),
    )
)]
async fn erase(
    State(Shared { db, .. }): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let written = db.write(move |tx| {
        if let Some(erased) = store::find_erased(tx, id)? {
            return Ok(outbox::position(tx, outbox::unsigned(erased.position)));
        }
        store::find(tx, id)?.ok_or_else(|| unknown(id))?;
        let position = outbox::append(tx, &user::erased_event(id))?;
        store::erase(tx, id, position.position)?;
        idempotency::forget(tx, &id.to_string())?;
        Ok::<_, Problem>(position)
    });
    let position = written.await?.value;
    Ok(with_position(&position, StatusCode::NO_CONTENT))
}

fn unknown(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no user {id}"))
}
