/* cmd_tokens.h - kosweep tokens: what a tokenizer makes of every sample, and which edges a sweep would remove. */
#ifndef KS_CLI_CMD_TOKENS_H
#define KS_CLI_CMD_TOKENS_H

/* argv[0] is the command's name, "tokens". Prints on stdout; returns a status with the error text set. Needs tokenizer.json only. */
int ks_cmd_tokens(int argc, char **argv);

#endif
