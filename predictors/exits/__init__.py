"""Early exits (SpecEE, ISCA 2025): exit predictor (T1), two-level schedule (T2), and the rules that join them."""
