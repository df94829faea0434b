// Why a model cannot do more, in words for whoever uses it; also of architectures whose models were not opened.
#pragma once

inline constexpr char SPECEE_RECURRENT[]  = "it keeps a running state, which cannot drop rejected tokens";
inline constexpr char SPECEE_NOT_CAUSAL[] = "it does not write one token after the other";
