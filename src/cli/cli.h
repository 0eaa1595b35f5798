/* cli.h - the commands of kosweep, one file each. Each returns a status, which is the exit code; main.c logs its error text. */
#ifndef KS_CLI_CLI_H
#define KS_CLI_CLI_H

/* argv[0] is the command's name. */
int ks_cmd_run(int argc, char **argv);
int ks_cmd_plan(int argc, char **argv);
int ks_cmd_tokens(int argc, char **argv);
int ks_cmd_model(int argc, char **argv);
int ks_cmd_demo(int argc, char **argv);

#endif
