/* cmd_model.h - kosweep model: what a model directory holds. */
#ifndef KS_CLI_CMD_MODEL_H
#define KS_CLI_CMD_MODEL_H

/* argv[0] is the command's name, "model". Prints on stdout; returns a status with the error text set. */
int ks_cmd_model(int argc, char **argv);

#endif
