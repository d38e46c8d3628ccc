//! Service `hello`: greets people, and counts the greetings of each from its own events.

use headwater::prelude::*;

headwater::include_events!();

pub const ABOUT: About = About {
    name: "hello",
    description: "Greets people, and counts the greetings.",
    version: env!("CARGO_PKG_VERSION"),
    port: 8090,
};

const MIGRATIONS: &[Migration] = &[Migration::sql(
    "0001_greeting",
    "CREATE TABLE greeting (name TEXT NOT NULL PRIMARY KEY, times INTEGER NOT NULL)",
)];

/// Counts the greetings of each person.
#[derive(Debug)]
pub struct Greetings;

impl Projection for Greetings {
    const NAME: &'static str = "hello-greetings"; // never rename
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["hello"];
    const EVENTS: &'static [&'static [&'static str]] = &[HelloEvent::SUBJECTS];
    const TABLES: &'static [&'static str] = &["greeting"];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            let HelloSaid { name } = event.decode()?;
            tx.run_raw(raw_sql!(
                Sqlite,
                "INSERT INTO greeting (name, times) VALUES ({name}, 1)
                 ON CONFLICT (name) DO UPDATE SET times = times + 1"
            ))?;
        }
        Ok(())
    }
}

/// A person, and how often they were greeted.
#[derive(Debug, PartialEq, FromQueryResult, serde::Serialize, ToSchema)]
pub struct Greeting {
    name: String,
    times: i64,
}

/// Greet a person
#[utoipa::path(post, path = "/hello/{name}", params(("name" = String, Path)), responses((status = 201)))]
async fn say(State(db): State<Database>, Path(name): Path<String>) -> Result<Answer, Problem> {
    let said = db.write(move |tx| outbox::append(tx, &HelloSaid { name }));
    Ok(Answer::created("/hello".to_owned(), said.await?.value, &()))
}

/// List all greetings
#[utoipa::path(get, path = "/hello", responses((status = 200, body = [Greeting])))]
async fn list(State(db): State<Database>) -> Result<axum::Json<Vec<Greeting>>, Problem> {
    Ok(axum::Json(db.read(greetings).await?))
}

fn greetings(snapshot: &Snapshot) -> Result<Vec<Greeting>, DbErr> {
    let all = raw_sql!(Sqlite, "SELECT name, times FROM greeting ORDER BY name");
    Greeting::find_by_statement(all).all(snapshot)
}

/// Runs the service until it is stopped.
pub async fn run(config: Config, process: Process) -> headwater::Result {
    let mut service = Service::start(ABOUT, MIGRATIONS, config, process).await?;
    service.publish(&SCHEMA)?;
    service.project(Greetings).await?;
    let routes = OpenApiRouter::new()
        .routes(routes!(say))
        .routes(routes!(list))
        .with_state(service.db.clone());
    service.serve(routes).await
}

#[cfg(test)]
mod tests {
    use headwater_testkit::{Given, events};

    use super::*;

    #[tokio::test]
    async fn greetings_of_one_person_are_counted() {
        let (name, times) = ("Ada".to_owned(), 2);
        let said = HelloSaid { name: name.clone() };
        let given = Given::events(Greetings, MIGRATIONS, events![said, said]).await;
        assert_eq!(given.then(greetings).await, [Greeting { name, times }]);
    }
}
