"""Early exits (SpecEE, ISCA 2025): exit predictor (the paper's T1), two-level schedule (T2), rules that join them."""
