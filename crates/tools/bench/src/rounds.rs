//! Rounds: compared programs are measured alternately, so that a slower or busier machine affects
//! all of them.

/// Runs each of the `N` contenders (0, 1, 2 …) once per round: forwards in one round, backwards in
/// the next, so that none always follows the same other. Returns each contender's rounds, without
/// an additional first round for warming up.
pub(crate) async fn in_turns<T, const N: usize>(
    rounds: usize,
    mut run: impl AsyncFnMut(usize) -> anyhow::Result<T>,
) -> anyhow::Result<[Vec<T>; N]> {
    let mut measured = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for turn in 0..N {
            let contender = if round % 2 == 0 { turn } else { N - 1 - turn };
            let result = run(contender).await?;
            if round > 0 {
                measured[contender].push(result);
            }
        }
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn contenders_take_turns_and_the_first_round_does_not_count() {
        let mut order = Vec::new();
        let measured = in_turns(2, async |contender| {
            order.push(contender);
            Ok(order.len())
        });
        let measured = measured.await.unwrap();
        assert_eq!(measured, [[4, 5], [3, 6]]);
        assert_eq!(order, [0, 1, 1, 0, 0, 1]);
    }
}
